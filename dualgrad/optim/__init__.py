"""Optimizers, with PyTorch's formulas and names."""

from dualgrad.optim.adam import Adam
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.rmsprop import RMSprop
from dualgrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop"]
