"""Optimizers, with PyTorch's formulas and names."""

from dualgrad.optim import lr_scheduler
from dualgrad.optim.adam import Adam, AdamW
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.rmsprop import RMSprop
from dualgrad.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]
