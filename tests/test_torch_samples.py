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
    **dict.fromkeys(
        (
            "bernoulli",
            "exponential",
            "multinomial",
            "nn.functional.dropout",
            "nn.functional.rrelu",
            "normal",
            "rand_like",
            "randint",
            "randn",
            "randn_like",
            "uniform",
        ),
        "random numbers",
    ),
    **dict.fromkeys(
        ("addbmm", "addmv", "baddbmm"),
        "integers times a float give floats, in PyTorch the float is truncated",
    ),
    **dict.fromkeys(("empty", "empty_like"), "values are undefined"),
    **dict.fromkeys(("median", "nanmedian"), "the middle of two, without a position, as in NumPy"),
    **dict.fromkeys(
        ("nn.functional.avg_pool1d", "nn.functional.avg_pool2d", "nn.functional.avg_pool3d"),
        "means of integers are floats",
    ),
    **dict.fromkeys(
        ("std", "std_mean", "var", "var_mean"),
        "the correction is 0 by default, as in NumPy and the array API",
    ),
    "argsort": "equal elements keep their order here, PyTorch's default leaves it open",
    "cat": "a tensor of shape (0,) fits beside any other in PyTorch only",
    "equal": "element by element, as in NumPy and the array API",
    "histogram": "NumPy's arguments",
    "linalg.solve": "the array API's rule: only one dimension is a vector",
    "logspace": "ends are not truncated for an integer dtype, as in NumPy",
    "nn.functional.hardtanh": "integers between fractions give floats",
    "nn.functional.local_response_norm": "means of integers are not truncated",
    "nn.functional.scaled_dot_product_attention": "random numbers, where weights are dropped",
    "sort": "values alone, as in NumPy and the array API",
    "square": "of a bool a bool, as x * x",
    "topk": "equal elements stay in order, PyTorch leaves it open",
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
