"""Speaks HTTP inwards."""
