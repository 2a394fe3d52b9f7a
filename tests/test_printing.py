"""Tensors as text and as HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.display.summary import summary_of
from dualgrad.runtime.dtype import as_dtype

SMALL = [
    (lambda: dg.tensor(3.0), "tensor(3.)"),
    (lambda: dg.tensor([1, 2]), "tensor([1, 2])"),
    (lambda: dg.tensor([1.5], dtype=dg.bfloat16), "tensor([1.5], dtype=dualgrad.bfloat16)"),
    (lambda: dg.ones(2, requires_grad=True), "tensor([1., 1.], requires_grad=True)"),
    (lambda: dg.ones(2, requires_grad=True) * 2, "tensor([2., 2.], grad_fn=<mul>)"),
    (lambda: dg.zeros(0), "tensor([])"),
    (lambda: dg.zeros(2, 0, 3), "tensor([], shape=(2, 0, 3))"),
    (lambda: dg.zeros(0, 1, dtype=dg.int8), "tensor([], shape=(0, 1), dtype=dualgrad.int8)"),
]

LARGE = """\
tensor([[   0,    1,    2, ..., 1997, 1998, 1999],
        [2000, 2001, 2002, ..., 3997, 3998, 3999]],
       shape=(2, 2000), dtype=dualgrad.int32,
       min=0, mean=2000, max=3999, std=1155)"""


@pytest.mark.parametrize(("make", "text"), SMALL, ids=[text for _, text in SMALL])
def test_small_ones_are_shown_whole(make: object, text: str) -> None:
    x = make()  # type: ignore[operator]
    assert repr(x) == str(x) == text


def test_large_ones_have_shape_and_summary() -> None:
    assert repr(dg.arange(4000, dtype=dg.int32).reshape(2, 2000)) == LARGE
    x = dg.ones(1001).requires_grad_()
    assert repr(x * 2).splitlines()[1:] == [
        "       shape=(1001,), grad_fn=<mul>,",
        "       min=2, mean=2, max=2, std=0)",
    ]
    assert "true=501)" in repr(dg.arange(1001) % 2 == 0)


@pytest.mark.parametrize("ndim", range(1, 5))
def test_many_dimensions_stay_short(ndim: int) -> None:
    x = dg.zeros((3000,) if ndim == 1 else (20,) * ndim)
    assert len(repr(x).splitlines()) <= 40


def test_summary_counts_what_is_not_finite() -> None:
    values = np.linspace(-1, 3, 5000, dtype=np.float32)
    values[[5, 70]], values[[8, 9, 4000]] = np.nan, [np.inf, -np.inf, np.inf]
    finite = values[np.isfinite(values)]
    text = repr(dg.from_numpy(values))
    assert text.endswith(f"mean={finite.mean():.4g}, max=3, std={finite.std():.4g}, nan=2, inf=3)")
    assert summary_of(np.full(2000, np.nan), as_dtype("float64")) == "nan=2000"


@pytest.mark.parametrize("seed", range(5))
def test_summary_of_any_layout(seed: int) -> None:
    rng = np.random.default_rng(seed)
    array = (rng.standard_normal((301, 2, 503)) * 10.0**seed - 3 * 10.0**seed)[::2, :, ::-3]
    numbers = [float(v) for v in re.findall(r"=(-?[0-9.e+]+)", summary_of(array, dg.float64))]
    wanted = [array.min(), array.mean(), array.max(), array.std()]
    np.testing.assert_allclose(numbers, wanted, rtol=6e-4)


def test_summary_of_integers_is_exact() -> None:
    array = np.full(2000, 2**62 + 1)
    array[7] = -(2**63)
    assert f"min={-(2**63)}, " in summary_of(array, dg.int64)
    assert f"max={2**62 + 1}, " in summary_of(array, dg.int64)


def test_summary_of_huge_numbers() -> None:
    assert "max=1.798e+308" in summary_of(np.full(2000, np.finfo(float).max), dg.float64)


def test_values_at_the_edges_are_right() -> None:
    x = np.arange(60.0 * 70).reshape(60, 70)
    lines = repr(dg.from_numpy(x)).splitlines()
    assert lines[0] == "tensor([[0.000e+00, 1.000e+00, 2.000e+00, ..., 6.700e+01, 6.800e+01,"
    assert "4.199e+03]]," in lines[-4] + lines[-3]


class Cells(HTMLParser):
    """The texts of a table's cells, and all others."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "td":
            self.rows[-1].append(data)
        else:
            self.texts.append(data)


def test_html_has_a_table() -> None:
    found = Cells(dg.tensor([[1.0, 2.5], [3.0, -1e-9]])._repr_html_())
    assert found.rows == [["1", "2.5"], ["3", "-1e-09"]]
    assert found.texts == ["Tensor", " ", "float32 (2, 2)"]
    assert found.open == []
    assert Cells(dg.tensor(7)._repr_html_()).rows == [["7"]]
    assert Cells(dg.tensor([True, False])._repr_html_()).rows == [["True", "False"]]


def test_html_of_large_ones() -> None:
    found = Cells(dg.arange(10000).reshape(100, 100)._repr_html_())
    assert [len(row) for row in found.rows] == [11] * 11
    assert found.rows[5] == ["…"] * 11
    assert found.rows[0] == ["0", "1", "2", "3", "4", "…", "95", "96", "97", "98", "99"]
    assert found.rows[-1][-1] == "9999"
    assert found.texts[2] == "int64 (100, 100), min=0, mean=5000, max=9999, std=2887"


def test_html_of_other_ranks() -> None:
    found = Cells(dg.ones(2, 1, 1)._repr_html_())
    assert found.rows == []
    assert found.texts[-1] == "[[[1.]],\n\n [[1.]]]"
    assert Cells(dg.zeros(0, 3)._repr_html_()).texts[-1] == "[]"
    x = dg.ones(2, requires_grad=True)
    assert Cells((x * 2)._repr_html_()).texts[2] == "float32 (2,), grad_fn=<mul>"
    assert "<mul>" not in (x * 2)._repr_html_()


def test_html_escapes_names() -> None:
    kind = type("<b>&", (dg.Tensor,), {"__slots__": ()})
    found = Cells(kind(dg.ones(1))._repr_html_())
    assert found.texts[0] == "<b>&"


def test_a_view_that_has_lost_its_history() -> None:
    x = dg.ones(3, requires_grad=True) * 1
    with dg.no_grad():
        view = x[1:]
    x.mul_(2)
    assert repr(view) == "tensor([2., 2.], grad_fn=<Invalid>)"
    assert "grad_fn=&lt;Invalid&gt;" in view._repr_html_()


def test_printing_in_compiled_functions(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        print(x)
        return x + 1

    for n in (3, 3000):
        f(dg.ones(n))
        assert capsys.readouterr().out == f"{dg.ones(n)}\n"
