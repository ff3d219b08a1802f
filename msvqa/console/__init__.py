"""What the command line prints: lines of progress, tables of results."""
