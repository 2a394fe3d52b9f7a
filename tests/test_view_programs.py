"""Random programs of views and changes in place: compiled against eager, eager against PyTorch."""

from __future__ import annotations

import linecache
import warnings
from typing import Any

import numpy as np
import pytest
import view_programs

import dualgrad as dg
from dualgrad.gradients.history import is_lost

# PyTorch refuses these; here they work: operands that overlap with what is overwritten (they are
# copied first), a reshape to the same shape (the tensor itself, no view), and using one of several
# views after a change under no_grad (its history holds as it is).
MORE = (
    "some elements of the input tensor and the written-to tensor refer to a single",
    "more than one element of the written-to tensor",
    "Can't detach views",
    "is a view and its base or another view of its base has been modified inplace",
)
LESS = "whose elements cannot be told apart"  # a part of an expanded tensor that has each once

Taken = tuple[Any, ...]


def against_torch(torch: Any, seed: int) -> None:
    lines = view_programs.draw(seed)
    ours = view_programs.run(dg, lines)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of `grad` of what is no leaf
        theirs = view_programs.run(torch, lines)
    what = "\n".join([*lines, f"{ours.error}", f"{theirs.error}"])
    if ours.raised != theirs.raised:
        unrecorded = "no_grad" in what or ".data" in what or "detach()" in what
        accepted = MORE if unrecorded else MORE[:3]
        assert any(text in str(theirs.error) for text in accepted) or LESS in str(ours.error), what
        return
    for name, value in ours.values.items():
        np.testing.assert_allclose(value, theirs.values[name], err_msg=what)
    for name in ours.gradients.keys() & theirs.gradients.keys():
        if name in "xw":
            g, h = ours.gradients[name], theirs.gradients[name]
            assert (g is None) == (h is None), what
            if g is not None:
                np.testing.assert_allclose(g, h, err_msg=what)


def call(f: Any) -> Taken:
    """All that a program makes, its gradients, and what these come to when its results are
    changed, used and differentiated after the call."""
    leaves = view_programs.leaves(dg)
    try:
        made, total = f(leaves["x"], leaves["w"], leaves["c"])
    except dg.runtime.errors.DualgradError as error:
        return ("raised", *said(error))
    tensors: list[dg.Tensor] = list(made.values())
    out: list[Any] = [
        (t.detach().numpy().tobytes(), t.version, "lost" if is_lost(t) else t.requires_grad)
        for t in tensors
    ]
    try:
        total.backward(retain_graph=True)
        out += [gradient(leaves["x"]), gradient(leaves["w"])]
        open_ = [t for t in tensors if t.requires_grad]
        for t in open_:
            t.retain_grad()
        for t in [t for t in open_ if not t.is_leaf][:1]:
            t.mul_(2.0)
        total = (leaves["x"] * 0.0).sum()
        for t in reversed(open_):
            total = total + (t * t * 0.37).sum()
        total.backward()
    except dg.runtime.errors.DualgradError as error:
        out += said(error)
    return (*out, *map(gradient, (leaves["x"], leaves["w"], *tensors)))


def gradient(x: dg.Tensor) -> bytes | None:
    return None if x.grad is None else x.grad.detach().numpy().tobytes()


def said(error: Exception) -> list[str]:
    """The text of an error, without the line that raised it."""
    return [type(error).__name__, str(error).rpartition("\n  at ")[0]]


def both_modes(seed: int) -> None:
    text, name = view_programs.source(view_programs.draw(seed)), f"<program {seed}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"dg": dg}
    exec(compile(text, name, "exec"), space)
    expected = call(space["program"])
    compiled = dg.function(space["program"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            assert call(compiled) == expected, text


@pytest.mark.parametrize("seed", range(1000, 1025))
def test_eager_and_compiled_programs_agree(seed: int) -> None:
    both_modes(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 3000))
def test_eager_and_compiled_programs_agree_at_length(seed: int) -> None:
    both_modes(seed)


@pytest.mark.parametrize("seed", range(40))
def test_programs_do_what_pytorch_does(seed: int) -> None:
    against_torch(pytest.importorskip("torch"), seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3000, 5000))
def test_programs_do_what_pytorch_does_at_length(seed: int) -> None:
    against_torch(pytest.importorskip("torch"), seed)
