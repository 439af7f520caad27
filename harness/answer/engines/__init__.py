"""What answers: a model in this process, or a server."""
