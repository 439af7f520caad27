"""What the simulated server replies to each kind of prompt."""
