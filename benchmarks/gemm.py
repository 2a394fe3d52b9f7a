"""Matrix products of real networks, against PyTorch: python -m benchmarks.gemm [options]."""

from __future__ import annotations

import sys

from benchmarks import grid
from benchmarks.workloads.grids import Product

GRID = (
    Product("MLP forward", 128, 784, 512, swapped="b"),
    Product("MLP forward", 128, 784, 512, swapped="b", epilogue=True),
    Product("MLP weight gradient", 512, 128, 784, swapped="a"),
    Product("MLP input gradient", 128, 512, 784),
    Product("MLP, batch 64", 64, 784, 512, swapped="b"),
    Product("MLP, batch 64", 64, 512, 512, swapped="b", epilogue=True),
    Product("classifier", 128, 512, 10, swapped="b"),
    Product("transformer projection", 1024, 256, 256, swapped="b"),
    Product("transformer MLP up", 1024, 256, 1024, swapped="b"),
    Product("transformer MLP up", 1024, 256, 1024, swapped="b", epilogue=True),
    Product("transformer MLP down", 1024, 1024, 256, swapped="b"),
    Product("attention scores", 128, 32, 128, batch=64, swapped="b"),
    Product("attention values", 128, 128, 32, batch=64),
    Product("LSTM gates", 64, 128, 512, swapped="b"),
    Product("LSTM input gradient", 64, 512, 128),
    Product("convolution as product", 64, 288, 121, batch=128),
    Product("convolution as product", 32, 9, 676, batch=128),
    Product("ResNet 1x1", 64, 256, 3136),
    Product("ResNet last block", 512, 4608, 49),
    Product("square", 64, 64, 64),
    Product("square", 256, 256, 256),
    Product("square", 512, 512, 512),
    Product("square", 1024, 1024, 1024),
    Product("GPT projection", 1024, 768, 768, swapped="b"),
    Product("GPT MLP", 1024, 768, 3072, swapped="b"),
    Product("one token", 1, 1024, 1024, swapped="b"),
    Product("four tokens", 4, 1024, 1024, swapped="b"),
    Product("eight tokens", 8, 1024, 1024),
    Product("fourteen tokens", 14, 1024, 1024, swapped="b"),
    Product("tiny", 16, 16, 16),
)


if __name__ == "__main__":
    sys.exit(grid.main("benchmarks.gemm", __doc__, GRID, sys.argv[1:]))
