"""Faults that are really injected, and what each of them must not lose."""
