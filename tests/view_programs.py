"""Random programs of views and changes in place, in words that dualgrad and PyTorch share.

A program is a list of lines over the leaves `x` and `w`, which require gradients, and the buffer
`c`, which does not.  It is drawn by running it: a line that raises is its last one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

import dualgrad as dg

START = ("a = x * 1.0", "b = w * 2.0")
LEAVES = {
    "x": np.array([0.5, -1.0, 2.0, 1.5, -0.25, 3.0]),
    "w": np.array([[1.0, 0.5, -2.0], [0.75, -1.5, 2.0]]),
    "c": np.array([[2.0, -0.5, 1.0], [0.25, 1.25, -1.0]]),
}
VIEWS = (
    "{v}[1:]", "{v}[0]", "{v}[..., None]", "{v}[:, 1]", "{v}[::2]", "{v}[..., -1]",
    "{v}.permute(1, 0)", "{v}.reshape(-1)",
    "{v}.reshape({n}, 1)", "{v}.reshape(2, 3)", "{v}.reshape(3, 2)",
    "{v}.transpose(0, 1)", "{v}.unsqueeze(0)", "{v}.squeeze()", "{v}.expand(2, *{v}.shape)",
    "{v}.diagonal()", "{v}.narrow(0, 0, 1)",
)  # fmt: skip
PARTS = ("{v}.chunk(2)[0]", "{v}.unbind(0)[-1]", "{v}.split(1)[0]", "list({v})[0]")
VALUES = ("{v} * 2.0", "{v} * {u}", "{v} + {u}", "{v}.exp()", "{v}.clone()", "{v}.sum()",
          "{v}[[1, 0]]")  # fmt: skip
CHANGES = (
    "{v}.mul_(2.0)", "{v}.mul_({u})", "{v}.add_({u})", "{v}.sub_({u})", "{v}.copy_({u})",
    "{v}.square_()", "{v}.tanh_()", "{v}.zero_()", "{v}.fill_(0.5)", "{v}.neg_()", "{v} += {u}",
    "{v} *= 0.5", "{v}[0] = {u}", "{v}[0] = 1.5", "{v}[1:] *= 0.5", "{v}[..., 0] += 1.0",
    "{v}[{v} > 0.5] = 0.25", "{v}[[0, 1]] = {u}", "{v}[[1, 0]] += {u}", "{v}[{v} > 0.0] *= 0.5",
    "{v}.masked_fill_({u} > 0.0, 0.5)", "{v}.clamp_(-1.0, 1.0)", "{v}.sigmoid_()",
    "{v}.detach_()", "{v}.detach().mul_(0.5)", "{v}.data.add_(0.5)", "{v}.retain_grad()",
)  # fmt: skip


@dataclass
class Outcome:
    """What a program has come to: values and gradients by name, or where it raised and what."""

    values: dict[str, Any]
    gradients: dict[str, Any]
    raised: int = -1  # the line, or the number of lines for `backward`
    error: Exception | None = None


def leaves(kind: Any) -> dict[str, Any]:
    """The tensors a program starts with, of dualgrad or PyTorch."""
    made = {n: kind.tensor(v.tolist(), dtype=kind.float64) for n, v in LEAVES.items()}
    made["x"].requires_grad_()
    made["w"].requires_grad_()
    return made


def draw(seed: int, length: int = 10) -> list[str]:
    """The lines of a program."""
    rng = random.Random(seed)
    space: dict[str, Any] = {**leaves(dg), "dg": dg}
    lines = list(START)
    for line in START:
        exec(line, space)
    for k in range(rng.randint(3, length)):
        for _ in range(40):
            line = _line(rng, space, k)
            try:
                exec(line, space)
            except dg.runtime.errors.GradientError:
                if rng.random() < 0.3:
                    return [*lines, line]
            except (ValueError, TypeError, IndexError, RuntimeError):
                continue
            else:
                lines.append(line)
                break
    return lines


def _line(rng: random.Random, space: dict[str, Any], k: int) -> str:
    names = [n for n, v in space.items() if isinstance(v, dg.Tensor)]
    v, u = rng.sample(names, 2)
    fields = {"v": v, "u": u, "n": space[v].size}
    draw = rng.random()
    if draw < 0.35:
        return f"t{k} = " + rng.choice(VIEWS).format(**fields)
    if draw < 0.40:
        return f"t{k} = " + rng.choice(PARTS).format(**fields)
    if draw < 0.52:
        return f"t{k} = " + rng.choice(VALUES).format(**fields)
    change = rng.choice(CHANGES).format(**fields)
    if draw < 0.58:
        return f"with dg.no_grad(): {change}"
    return change


def source(lines: list[str]) -> str:
    """A function `program(x, w, c)` of the lines that returns all it has made, as a dict, and
    the sum of what requires gradients."""
    body = "".join(f"    {line}\n" for line in lines)
    made = list(dict.fromkeys(_assigned(lines)))
    names = "".join(f"{n!r}: {n}, " for n in made)
    total = "".join(
        f"    if {n}.requires_grad: total = total + ({n} * {k + 1}.0).sum()\n"
        for k, n in enumerate(made)
    )
    return (
        f"def program(x, w, c):\n{body}    total = (x * 0.0).sum()\n{total}"
        f"    return {{{names}}}, total\n"
    )


def _assigned(lines: list[str]) -> list[str]:
    return [line.split(" = ")[0] for line in lines if line.split(" = ")[0].isidentifier()] + ["c"]


def run(kind: Any, lines: list[str]) -> Outcome:
    """Run a program line by line, and backward from the sum of all that requires gradients."""
    space: dict[str, Any] = {**leaves(kind), "dg": kind}
    for k, line in enumerate(lines):
        try:
            exec(line, space)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            return Outcome({}, {}, k, error)
    names = list(dict.fromkeys(_assigned(lines)))
    values = {n: np.array(space[n].detach().numpy()) for n in names}
    try:
        total = (space["x"] * 0.0).sum()
        for k, n in enumerate(names):
            if space[n].requires_grad:
                total = total + (space[n] * (k + 1.0)).sum()
        total.backward()
    except RuntimeError as error:
        return Outcome(values, {}, len(lines), error)
    grads = {n: space[n].grad for n in "xw"}
    grads |= {n: space[n].grad for n in names if not space[n].is_leaf and space[n].retains_grad}
    found = {n: None if g is None else np.array(g.detach().numpy()) for n, g in grads.items()}
    return Outcome(values, found)
