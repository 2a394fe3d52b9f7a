"""Every op that PyTorch has too, on PyTorch's own samples (optional: needs torch, expecttest).

    pytest -m slow tests/test_torch_samples.py -s

prints how many samples of each op agree.  What does not agree has its reason in DIFFERENT.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch lists the samples")
pytest.importorskip("expecttest", reason="PyTorch's list of ops needs it")

from torch_samples import Outcome, common_ops, run_op

pytestmark = pytest.mark.slow

# op -> why some or all samples mean something else here
DIFFERENT: dict[str, str] = {
    "addbmm": "integers times a float give floats",
    "addmv": "integers times a float give floats",
    "addr": "does not take bools; integers times a float give floats",
    "argsort": "equal elements keep their order here, PyTorch's default leaves it open",
    "baddbmm": "integers times a float give floats",
    "bernoulli": "random numbers",
    "cat": "a tensor of shape (0,) fits beside any other in PyTorch only",
    "empty": "values are undefined",
    "equal": "element by element, as in NumPy and the array API",
    "exponential": "random numbers",
    "kron": "does not take bools",
    "linalg.eigh": "signs of eigenvectors",
    "linalg.lstsq": "residuals, rank and singular values are always there",
    "linalg.solve": "NumPy's rule: only one dimension is a vector",
    "linalg.svd": "signs of singular vectors",
    "multinomial": "random numbers",
    "nn.functional.avg_pool1d": "means of integers are floats",
    "nn.functional.avg_pool2d": "means of integers are floats",
    "nn.functional.avg_pool3d": "means of integers are floats",
    "nn.functional.batch_norm": "a batch without channels is refused",
    "nn.functional.dropout": "random numbers",
    "nn.functional.local_response_norm": "means of integers are floats",
    "nn.functional.multi_margin_loss": "inputs without classes, targets [1] for inputs [C]",
    "nn.functional.scaled_dot_product_attention": "random numbers",
    "normal": "random numbers",
    "outer": "does not take bools",
    "rand_like": "random numbers",
    "randint": "random numbers",
    "randn": "random numbers",
    "randn_like": "random numbers",
    "sort": "values alone",
    "tensordot": "sizes of 1 do not broadcast",
    "to": "a dtype is all that can be asked for: there is one device and one memory format",
    "topk": "equal elements stay in order",
    "uniform": "random numbers",
    "zero_": "a leaf that requires gradients is not changed in place",
}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    found: list[Outcome] = []
    yield found
    for one in found:
        note = f"  ({DIFFERENT[one.name]})" if one.failures else ""
        print(f"{one.name:45} {one.passed:4} of {one.total:4}{note}")
    passed, total = sum(o.passed for o in found), sum(o.total for o in found)
    print(f"{len(found)} ops, {passed} of {total} samples agree")


@pytest.mark.parametrize("op", common_ops(), ids=lambda op: op.name)
def test_agrees(op: Any, outcomes: list[Outcome]) -> None:
    outcome = run_op(op)
    outcomes.append(outcome)
    if outcome.failures and op.name not in DIFFERENT:
        pytest.fail("\n".join(outcome.failures[:5]))
