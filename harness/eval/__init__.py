"""The `answer` stage (model outputs) and the `judge` stage (scores)."""
