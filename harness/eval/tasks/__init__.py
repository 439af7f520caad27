"""Open LLM Leaderboard's tasks (its first version): their data, lm-eval's part, the scores."""
