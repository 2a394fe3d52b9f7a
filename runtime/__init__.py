"""Devices, memory, threads, program launch and the disk cache."""
