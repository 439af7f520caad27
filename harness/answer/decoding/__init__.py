"""Answers made token by token, for many prompts at a time."""
