"""Tensors for people to read, as text and as HTML."""
