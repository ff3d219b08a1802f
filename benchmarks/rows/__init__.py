"""The rows of the benchmark: `table` lists them, each other module measures some."""
