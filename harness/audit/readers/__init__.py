"""One reader for each kind of results."""
