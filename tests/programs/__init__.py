"""Random programs over the whole library, their comparison, and their reduction to small ones."""
