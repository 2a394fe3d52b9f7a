"""CSV files: Python's own writer as the oracle for good ones, one damaged file per error."""

from __future__ import annotations

import csv
import gzip
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.data import read_csv
from dualgrad.errors import ArgumentError, DataError


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_types_are_found(tmp_path: Path) -> None:
    path = written(tmp_path, 'a,b,"c, d",e\n1,2.5,x,\n-3,nan,"y ""z""",7\n\n 4 ,1e3,,0\n')
    table = read_csv(path)
    assert list(table) == ["a", "b", "c, d", "e"]
    assert [c.dtype.kind for c in table.values()] == ["i", "f", "U", "f"]
    assert table["a"].tolist() == [1, -3, 4]
    assert np.array_equal(table["b"], [2.5, np.nan, 1000], equal_nan=True)
    assert table["c, d"].tolist() == ["x", 'y "z"', ""]
    assert np.array_equal(table["e"], [np.nan, 7, 0], equal_nan=True)


cells = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\r"), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(cells, min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    delimiter=st.sampled_from(",;\t"),
    packed=st.booleans(),
)
def test_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], delimiter: str, packed: bool
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    content = out.getvalue().encode()
    path = tmp_path_factory.mktemp("csv") / "table"
    path.write_bytes(gzip.compress(content) if packed else content)
    types = {str(i): str for i in range(len(rows[0]))}
    table = read_csv(path, header=False, types=types, delimiter=delimiter)
    assert [list(row) for row in zip(*(c.tolist() for c in table.values()), strict=True)] == rows


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=8))
def test_floats_keep_their_bits(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "table"
    path.write_text("x\n" + "\n".join(map(repr, values)) + "\n")
    column = read_csv(path, types={"x": dg.float64})["x"]
    assert column.tobytes() == np.array(values).tobytes()


def test_columns_and_types(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffid,x,ok,name\r\n1,2,true,7\r\n3,4,0,8\r\n")
    types = {"x": dg.float32, "ok": bool, "name": str, "id": "uint8"}
    table = read_csv(path, columns=["name", "x", "ok", "id"], types=types)
    assert list(table) == ["name", "x", "ok", "id"]
    assert [str(c.dtype) for c in table.values()] == ["<U1", "float32", "bool", "uint8"]
    assert [c.tolist() for c in table.values()] == [["7", "8"], [2, 4], [True, False], [1, 3]]
    assert dg.tensor(table["x"]).tolist() == [2, 4]


def test_long_integers_stay_whole(tmp_path: Path) -> None:
    path = written(tmp_path, f"x,y,z\n{2**63},{2**63 - 1},1_0\n1,{-(2**63)},2\n")
    table = read_csv(path)
    assert table["x"].tolist() == [str(2**63), "1"]
    assert table["y"].tolist() == [2**63 - 1, -(2**63)]
    assert table["z"].tolist() == ["1_0", "2"]


def test_no_rows(tmp_path: Path) -> None:
    table = read_csv(written(tmp_path, "a,b\n"))
    assert {name: c.shape for name, c in table.items()} == {"a": (0,), "b": (0,)}


def test_rounding_to_infinity(tmp_path: Path) -> None:
    column = read_csv(written(tmp_path, "a\n1e300\n"), types={"a": "float32"})["a"]
    assert column.tolist() == [math.inf]


GOOD = "a,b\n1,2\n"
DAMAGED: dict[str, Any] = {
    "empty": ("", {}, "has no lines", "an empty file"),
    "blank": ("\n\n", {}, "has no lines", "an empty file"),
    "a field less": (GOOD + "3\n", {}, "line 3 of", "actual: 1"),
    "a field more": ("a,b\n\n1,2\n3,4,5\n", {}, "line 4 of", "expect: 2"),
    "after a field of two lines": ('a,b\n"1\n2",3\n4\n', {}, "line 4 of", "actual: 1"),
    "open quote": (GOOD + '3,"4\n5,6\n', {}, "line 3 of", "unexpected end of data"),
    "text after quote": (GOOD + '3,"4"x\n', {}, "line 3 of", "expected after"),
    "old ends of line": ("a,b\r1,2\r", {}, "line 1 of", "new-line"),
    "huge field": (GOOD + "1," + "x" * 200_000, {}, "line 3 of", "field limit"),
    "same names": ("a,b,a\n", {}, "columns of the same name", "['a']"),
    "no UTF-8": (b"a,b\n1,\xff\n", {}, "not UTF-8 at byte 6", "0xff"),
    "no UTF-8 behind a mark": (b"\xef\xbb\xbfa,\xc3\n", {}, "not UTF-8 at byte 5", "0xc3"),
    "binary": (b"\0" * (1 << 24) + b"ab", {}, "more than 16777216 bytes, from byte 0", "no end"),
    "no number": ("a,b\n1,2\n3,x\n", {"b": "float64"}, "line 3 of", "actual: 'x'"),
    "no integer": ("a,b\n1,2\n3,4.5\n", {"b": "int32"}, "has no int32 in column 'b'", "'4.5'"),
    "out of range": ("a,b\n1,300\n", {"b": "uint8"}, "has no uint8 in column 'b'", "'300'"),
    "no bool": ("a,b\n1,yes\n", {"b": "bool"}, "has no bool in column 'b'", "'yes'"),
    "gzip": (gzip.compress(b"a,b\n1,2\n" * 99)[:-9], {}, "the gzip data of", "ended before"),
}


@pytest.mark.parametrize(("text", "types", "what", "detail"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(tmp_path: Path, text: Any, types: Any, what: str, detail: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_csv(path, types=types)
    assert what in caught.value.what
    assert str(path) in caught.value.what
    assert detail in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": ["a", "c"]}, "has no column 'c'"),
        ({"types": {"c": int}}, "has no column 'c'"),
        ({"types": {"a": "bfloat16"}}, "cannot be bfloat16"),
        ({"delimiter": ",,"}, "no delimiter"),
        ({"delimiter": '"'}, "no delimiter"),
    ],
)
def test_refuses(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        read_csv(written(tmp_path, GOOD), **arguments)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_csv(tmp_path / "nothing-here")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=60))
def test_nothing_else_is_raised(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("csv") / "table"
    path.write_bytes(content)
    try:
        table = read_csv(path)
    except DataError:
        return
    assert len({len(column) for column in table.values()}) == 1
