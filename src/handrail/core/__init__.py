"""The rules: pure functions on frozen values, no I/O, no clock, no randomness.

`now`, ids and settings come in as arguments, so the same input gives the same output and every
rule can be tested as a table.
"""
