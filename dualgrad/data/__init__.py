"""Datasets, batches, and the digits used by the examples."""

from dualgrad.data.collate import default_collate
from dualgrad.data.dataset import Dataset, TensorDataset
from dualgrad.data.idx import read_idx
from dualgrad.data.loader import DataLoader
from dualgrad.data.mnist import find_mnist, mnist
from dualgrad.data.synthetic import synthetic_digits

__all__ = [
    "DataLoader",
    "Dataset",
    "TensorDataset",
    "default_collate",
    "find_mnist",
    "mnist",
    "read_idx",
    "synthetic_digits",
]
