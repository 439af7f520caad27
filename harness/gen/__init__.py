"""The gen stage: data sets."""
