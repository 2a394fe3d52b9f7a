"""Convolutions and attention, against PyTorch: python -m benchmarks.kernels [options] [texts].

Forward, and gradients: those of a convolution one at a time without the forward pass, except in
eager mode, where it belongs to the time; those of attention together with the forward pass.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks import grid
from benchmarks.workloads.grids import Attention, Convolution

_LAYERS = (
    Convolution("forward", 128, 1, (28, 28), 32, 3),
    Convolution("forward", 128, 32, (13, 13), 64, 3),
    Convolution("forward", 32, 64, (28, 28), 64, 3, padding=1),
    Convolution("forward", 8, 64, (56, 56), 64, 1),
    Convolution("forward", 8, 128, (28, 28), 256, 3, stride=2, padding=1),
    Convolution("forward", 4, 3, (224, 224), 64, 7, stride=2, padding=3),
    Convolution("forward", 8, 512, (7, 7), 512, 3, padding=1),
    Convolution("forward", 8, 96, (56, 56), 96, 3, padding=1, groups=96),
    Convolution("forward", 16, 64, (256,), 128, 5, padding=2),
)
_PARTS = ("forward", "weight", "input")
_LENGTHS = (128, 256, 512, 1024, 2048)
_HEADS = 8

GRID = (
    *(replace(layer, part=part) for layer in _LAYERS for part in _PARTS),
    *(
        Attention(part, max(1, 512 // length), _HEADS, length, 64)
        for length in _LENGTHS
        for part in ("forward", "forward and backward")
    ),
    Attention("forward", 1, _HEADS, 1024, 64, causal=True),
)


if __name__ == "__main__":
    sys.exit(grid.main("benchmarks.kernels", __doc__, GRID, sys.argv[1:]))
