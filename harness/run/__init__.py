"""Rows planned and run."""
