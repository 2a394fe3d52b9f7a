"""Train an LSTM to write like a text, character by character, and let it write.

python examples/lstm_language_model.py                     # two sonnets
python examples/lstm_language_model.py --root FOLDER --steps 2000    # input.txt there
python examples/lstm_language_model.py --compare           # both modes: same bits?
"""

from __future__ import annotations

import argparse
from typing import Any

from common import Decorator, launch
from texts import Text, fit, load_text, text_options

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim

States = tuple[dg.Tensor, dg.Tensor]


class LanguageModel(nn.Module):
    def __init__(self, characters: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, args.width // 2)
        self.lstm = nn.LSTM(args.width // 2, args.width, args.layers, batch_first=True)
        self.head = nn.Linear(args.width, characters)

    def forward(self, ids: dg.Tensor, states: States | None = None) -> tuple[dg.Tensor, States]:
        x, states = self.lstm(self.embedding(ids), states)
        return self.head(x), states


def write(model: LanguageModel, text: Text, args: argparse.Namespace, decorate: Any) -> str:
    """Return what the model writes after the first character of the text, one call for each."""
    shape = (args.layers, 1, args.width)
    states = tuple(dg.zeros(shape, device=args.device) for _ in range(2))

    @decorate
    def next_character(ids: dg.Tensor, states: States) -> tuple[dg.Tensor, States]:
        with dg.no_grad():
            scores, states = model(ids, states)
            return dg.multinomial(F.softmax(scores[:, -1], -1), 1), states

    ids = dg.from_numpy(text.train[None, :1].copy()).to(args.device)
    written = ""
    for _ in range(100):
        ids, states = next_character(ids, states)
        written += text.characters[ids.item()]
    return written


def train(args: argparse.Namespace, decorate: Decorator) -> tuple[nn.Module, list[float]]:
    dg.seed(args.seed)
    text = load_text(args)
    model = LanguageModel(len(text.characters), args).to(args.device)
    optimizer = optim.Adam(model.parameters(), lr=args.lr)

    def loss_of(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        scores, _ = model(ids)
        return F.cross_entropy(scores.flatten(0, 1), targets.flatten())

    @decorate
    def step(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    @decorate
    def evaluate(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            return loss_of(ids, targets)

    losses = fit(step, evaluate, text, args)
    print(write(model, text, args, decorate))
    return model, losses


if __name__ == "__main__":
    parser = text_options(
        __doc__, steps=100, batch_size=32, context=32, width=128, layers=1, lr=5e-3
    )
    launch(train, parser.parse_args())
