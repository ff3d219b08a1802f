"""Checks: what `doctor` reports on and what every verb looks at before Ray starts."""
