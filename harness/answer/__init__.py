"""The answer stage: a model's answers to a set of prompts."""
