"""A row of a results table: its spec, its settings, its scaled-down twin."""
