"""A containerised harness that reproduces rows of instruction-tuning results tables."""

__version__ = "0.1.0"
