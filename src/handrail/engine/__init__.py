"""Awaits and orders: the loops that carry out what `core` decided."""
