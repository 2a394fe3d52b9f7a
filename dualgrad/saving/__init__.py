"""Saving: weights in safetensors, everything else in JSON, all in one file, and no pickle."""

from dualgrad.saving.checkpoint import load_checkpoint, save_checkpoint
from dualgrad.saving.store import load, save

__all__ = ["load", "load_checkpoint", "save", "save_checkpoint"]
