"""Loop IR: kernels as loops, loads and stores, and what builds, checks and prints them."""
