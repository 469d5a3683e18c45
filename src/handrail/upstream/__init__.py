"""Speaks HTTP outwards. Knows nothing of runs, callers or the store."""
