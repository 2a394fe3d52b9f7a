"""Kernels of arrays that no cache holds, against PyTorch: python -m benchmarks.bandwidth [options].

`floor` is how much of the time a copy takes that touches as many bytes.
"""

from __future__ import annotations

import sys

from benchmarks import grid
from benchmarks.workloads.grids import Streaming

GRID = (
    Streaming("relu(x)"),
    Streaming("x + y", operands=2),
    Streaming("x + y / 2", operands=2),
    Streaming("sum of rows", rows=1 << 16, results=0),
    Streaming("sum of columns", rows=1 << 16, results=0),
    Streaming("softmax"),
    Streaming("layer_norm"),
    Streaming("relu(x)", gradient=True),
    Streaming("softmax", gradient=True),
    Streaming("layer_norm", gradient=True),
)


if __name__ == "__main__":
    sys.exit(grid.main("benchmarks.bandwidth", __doc__, GRID, sys.argv[1:]))
