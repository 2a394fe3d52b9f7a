"""Lowering of loop IR to CUDA C."""
