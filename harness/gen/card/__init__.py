"""A data set's card."""
