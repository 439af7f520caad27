"""Files of results and logs, parsed."""
