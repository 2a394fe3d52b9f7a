"""What the examples of language models share: the text, its batches, training and writing."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from common import options, progress

import dualgrad as dg

Ids = np.ndarray[Any, np.dtype[np.int64]]

# W. Shakespeare, sonnets 18 and 116
SONNETS: Final = """\
Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm'd;
And every fair from fair sometime declines,
By chance or nature's changing course untrimm'd;
But thy eternal summer shall not fade
Nor lose possession of that fair thou owest;
Nor shall Death brag thou wander'st in his shade,
When in eternal lines to time thou growest:
So long as men can breathe or eyes can see,
So long lives this and this gives life to thee.

Let me not to the marriage of true minds
Admit impediments. Love is not love
Which alters when it alteration finds,
Or bends with the remover to remove:
O no! it is an ever-fixed mark
That looks on tempests and is never shaken;
It is the star to every wandering bark,
Whose worth's unknown, although his height be taken.
Love's not Time's fool, though rosy lips and cheeks
Within his bending sickle's compass come:
Love alters not with his brief hours and weeks,
But bears it out even to the edge of doom.
If this be error and upon me proved,
I never writ, nor no man ever loved.
"""


class Text(NamedTuple):
    """The characters that occur, and the numbers of those in both parts of the text."""

    characters: str
    train: Ids
    valid: Ids

    def numbers(self, text: str) -> Ids:
        return np.array([self.characters.index(c) for c in text], np.int64)


def text_options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return the options of an example that learns to write."""
    parser = options(doc, **defaults)
    parser.add_argument("--root", help="folder of input.txt, such as tiny Shakespeare")
    return parser


def load_text(args: argparse.Namespace) -> Text:
    """Return the text of `args.root`, or two sonnets; the last tenth is for validation."""
    found = args.root is not None
    text = (Path(args.root) / "input.txt").read_text(encoding="utf-8") if found else SONNETS
    characters = "".join(sorted(set(text)))
    ids = Text(characters, np.empty(0, np.int64), np.empty(0, np.int64)).numbers(text)
    cut = len(ids) * 9 // 10
    print(f"{args.root or 'two sonnets'}: {len(ids)} characters, {len(characters)} different ones")
    return Text(characters, ids[:cut], ids[cut:])


def windows(ids: Ids, starts: Ids, length: int, device: str) -> tuple[dg.Tensor, dg.Tensor]:
    """Return the characters from `starts` on, and for each the one that comes next."""
    found = ids[starts[:, None] + np.arange(length + 1)]
    inputs, targets = found[:, :-1], found[:, 1:]
    return tuple(dg.from_numpy(x.copy()).to(device) for x in (inputs, targets))  # type: ignore[return-value]


def validation_loss(evaluate: Callable[..., Any], text: Text, args: argparse.Namespace) -> float:
    """Return the mean loss per character over the windows of the last tenth."""
    ids = text.valid
    count = max(1, (len(ids) - 1) // args.context)
    size = min(count, args.batch_size)
    starts = np.arange(count - count % size) * args.context
    batches = [windows(ids, part, args.context, args.device) for part in starts.reshape(-1, size)]
    return sum(evaluate(*batch).item() for batch in batches) / len(batches)


def fit(
    step: Callable[..., Any],
    evaluate: Callable[..., Any],
    text: Text,
    args: argparse.Namespace,
) -> list[float]:
    """Train for `args.steps` steps on windows drawn at random, print five lines, and return all
    losses."""
    draw = np.random.default_rng(args.seed)
    losses: list[float] = []
    start = time.perf_counter()
    for i in progress(range(1, args.steps + 1), "steps"):
        starts = draw.integers(0, len(text.train) - args.context, args.batch_size)
        losses.append(step(*windows(text.train, starts, args.context, args.device)).item())
        if i % max(args.steps // 5, 1) == 0 or i == args.steps:
            loss = validation_loss(evaluate, text, args)
            print(
                f"step {i}: train loss {losses[-1]:.4f}, validation loss {loss:.4f}, "
                f"{time.perf_counter() - start:.1f} s",
                flush=True,
            )
    return losses
