"""Optimizers, with PyTorch's formulas and names."""

from dualgrad.optim import lr_scheduler, swa_utils
from dualgrad.optim.adagrad import Adadelta, Adagrad
from dualgrad.optim.adam import Adam, AdamW
from dualgrad.optim.adamax import Adamax
from dualgrad.optim.lion import Lion
from dualgrad.optim.nadam import NAdam
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.radam import RAdam
from dualgrad.optim.rmsprop import RMSprop
from dualgrad.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "lr_scheduler",
    "swa_utils",
]
