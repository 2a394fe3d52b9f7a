"""Ops: one frozen dataclass each, grouped by family."""
