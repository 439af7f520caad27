"""The judge stage: scores of a model's outputs, or of the model itself."""
