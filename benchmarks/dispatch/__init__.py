"""The cost of calls: what stands around the kernels, beside other libraries.

python -m benchmarks.dispatch --help
"""
