"""Tests, in packages that mirror harness/."""
