"""Train a transformer to write like a text, character by character, and let it write.

python examples/char_transformer.py                        # two sonnets
python examples/char_transformer.py --root FOLDER          # input.txt there, in earnest:
    --steps 1200
python examples/char_transformer.py --compare              # both modes: same bits?
"""

from __future__ import annotations

import argparse
from typing import Any

from common import Decorator, launch
from texts import Text, fit, load_text, text_options

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim


class Block(nn.Module):
    """Causal attention with rotary positions, then two linear maps; each is added to its input."""

    def __init__(self, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.rotary = nn.RotaryEmbedding(width // heads, context)
        self.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def attend(self, x: dg.Tensor, cache: nn.KVCache | None) -> dg.Tensor:
        n, length, width = x.shape
        parts = self.qkv(x).reshape(n, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is None:
            y = F.scaled_dot_product_attention(self.rotary(q), self.rotary(k), v, is_causal=True)
        else:
            positions, mask = cache.positions(length), cache.mask(length)
            q, k = self.rotary(q, positions), self.rotary(k, positions)
            y = F.scaled_dot_product_attention(q, *cache.update(k, v), mask)
        return self.out(y.permute(0, 2, 1, 3).reshape(n, length, width))

    def forward(self, x: dg.Tensor, cache: nn.KVCache | None = None) -> dg.Tensor:
        x = x + self.attend(self.norm1(x), cache)
        return x + self.mlp(self.norm2(x))


class CharTransformer(nn.Module):
    def __init__(self, characters: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, args.width)
        self.blocks = nn.ModuleList(
            [Block(args.width, args.heads, args.context) for _ in range(args.layers)]
        )
        self.norm = nn.LayerNorm(args.width)
        self.head = nn.Linear(args.width, characters, bias=False)
        for name, param in self.named_parameters():
            if param.ndim > 1 and not name.endswith("norm.weight"):
                nn.init.normal_(param, std=0.02)

    def forward(self, ids: dg.Tensor, caches: list[nn.KVCache] | None = None) -> dg.Tensor:
        x = self.embedding(ids)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])
        return self.head(self.norm(x))


def write(model: CharTransformer, text: Text, args: argparse.Namespace, decorate: Any) -> str:
    """Return what the model writes after the first character of the text; each character is one
    call, of keys and values of the last character alone."""
    caches = [
        nn.KVCache(1, args.context, args.heads, args.width // args.heads, device=args.device)
        for _ in model.blocks
    ]

    @decorate
    def next_character(ids: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            weights = F.softmax(model(ids, caches)[:, -1], -1)
            return dg.multinomial(weights, 1)

    ids = dg.from_numpy(text.train[None, :1].copy()).to(args.device)
    written = ""
    for _ in range(args.context):
        ids = next_character(ids)
        written += text.characters[ids.item()]
    return written


def train(args: argparse.Namespace, decorate: Decorator) -> tuple[nn.Module, list[float]]:
    dg.seed(args.seed)
    text = load_text(args)
    model = CharTransformer(len(text.characters), args).to(args.device)
    optimizer = optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.99))
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.steps, pct_start=0.1)

    def loss_of(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        return F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())

    @decorate
    def compiled_step(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = loss_of(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    def step(ids: dg.Tensor, targets: dg.Tensor) -> dg.Tensor:
        loss = compiled_step(ids, targets)
        schedule.step()
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
        __doc__, steps=100, batch_size=16, context=64, width=128, heads=4, layers=4, lr=2e-3
    )
    launch(train, parser.parse_args())
