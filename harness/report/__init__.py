"""The results matrix and the tables, from manifests alone."""
