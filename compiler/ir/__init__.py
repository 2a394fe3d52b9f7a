"""Tensor IR: integer expressions, types, values and nodes."""
