"""Calls to teacher and judge models: client, retries, budget, transcript."""
