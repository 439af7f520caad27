"""How much memory a training needs, and what of it fits."""
