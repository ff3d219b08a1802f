"""Data sets: one module per published layout."""
