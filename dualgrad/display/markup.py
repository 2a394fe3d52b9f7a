"""Tensors as HTML, for notebooks."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
EDGE = 5  # rows and columns shown at each end of a large table
_CELL = 'style="text-align:right"'


def tensor_html(title: str, facts: str, body: Array | str) -> str:
    """A line of facts above the values.

    title  the name of the class
    facts  dtype, shape and the rest, as text
    body   values of up to two dimensions, which become a table, or the text of others
    """
    head = f"<b>{escape(title)}</b> <code>{escape(facts)}</code>"
    shown = f"<pre>{escape(body)}</pre>" if isinstance(body, str) else _table(body)
    return f'<div class="dualgrad-tensor">{head}{shown}</div>'


def _table(values: Array) -> str:
    values = values.reshape(-1, values.shape[-1] if values.ndim else 1)
    rows, columns = (_places(n) for n in values.shape)
    lines = []
    for k in rows:
        cells = ["…" if k is None or j is None else _text(values[k, j]) for j in columns]
        lines.append("<tr>" + "".join(f"<td {_CELL}>{escape(c)}</td>" for c in cells) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _places(n: int) -> list[int | None]:
    """The numbers of the rows or columns that are shown; None for a gap."""
    if n <= 2 * EDGE + 1:
        return list(range(n))
    return [*range(EDGE), None, *range(n - EDGE, n)]


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
