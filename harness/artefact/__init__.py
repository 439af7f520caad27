"""What a stage is called with and makes: the call, its key, the store, its environment."""
