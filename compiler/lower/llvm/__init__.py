"""Lowering of loop IR to LLVM IR."""
