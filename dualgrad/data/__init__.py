"""Datasets, samplers, loaders, and the digits used by the examples."""

from dualgrad.data import transforms
from dualgrad.data.collate import default_collate, default_convert
from dualgrad.data.csv import read_csv
from dualgrad.data.dataset import (
    ChainDataset,
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from dualgrad.data.generated import blobs, circles, copy_task, moons, spirals
from dualgrad.data.idx import read_idx
from dualgrad.data.loader import DataLoader
from dualgrad.data.mnist import find_mnist, mnist
from dualgrad.data.npz import read_npz
from dualgrad.data.samplers import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from dualgrad.data.synthetic import synthetic_digits

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "blobs",
    "circles",
    "copy_task",
    "default_collate",
    "default_convert",
    "find_mnist",
    "mnist",
    "moons",
    "random_split",
    "read_csv",
    "read_idx",
    "read_npz",
    "spirals",
    "synthetic_digits",
    "transforms",
]
