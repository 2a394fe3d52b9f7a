"""The workloads in each framework: one module per framework, one function per workload.

A function takes the arrays of the workload and a decorator that compiles (or does nothing), and
returns a Program.  A framework need not have all workloads.
"""
