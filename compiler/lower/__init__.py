"""Lowering of loop IR to target text, and its reference interpreter."""
