"""What a row says: models, and loading with file, line and column in every error."""
