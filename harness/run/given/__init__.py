"""Given data by address: brought to the volume once, by its sha256, before any stage runs."""
