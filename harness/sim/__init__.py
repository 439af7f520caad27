"""The simulated teacher and judge: an OpenAI-compatible server, so that everything runs offline."""
