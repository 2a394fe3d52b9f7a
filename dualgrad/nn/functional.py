"""`dualgrad.functional`, where PyTorch has it: `import dualgrad.nn.functional as F`."""

from dualgrad.functional import *  # noqa: F403
from dualgrad.functional import __all__ as __all__
