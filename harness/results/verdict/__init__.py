"""Whether a row reproduces the published number."""
