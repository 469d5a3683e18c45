"""Remembers runs. `base` is the port; nothing above this layer names a concrete store."""
