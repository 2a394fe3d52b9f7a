"""Static against dynamic: what compiling a step buys, and what other libraries need for it.

python -m benchmarks --help
"""
