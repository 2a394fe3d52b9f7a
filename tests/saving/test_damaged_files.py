"""Files that are damaged, cut short or hostile: each is refused with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.runtime.errors import ArgumentError, DataError

X = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DATA = struct.pack("<2f", 1.0, 2.0)
LONG = b"9" * 5000


def file_of(header: Any, data: bytes = DATA) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def with_tree(tree: Any, **tensors: Any) -> bytes:
    text = tree if isinstance(tree, str) else json.dumps(tree)
    metadata = {"dualgrad.version": "1", "dualgrad.tree": text}
    return file_of({"__metadata__": metadata, **tensors}, DATA if tensors else b"")


def entry(text: bytes) -> bytes:
    """A header with one tensor, whose description is `text`."""
    return b'{"x":{%s}}' % text


FILES = {
    "empty": (b"", "truncated"),
    "seven bytes": (b"\0" * 7, "truncated"),
    "no header": (b"\0" * 8, "damaged"),
    "header too long": (struct.pack("<Q", 2**63) + b"{}", "header of 9223372036854775808 bytes"),
    "header past the end": (struct.pack("<Q", 3) + b"{}", "within the 10 bytes"),
    "header is no JSON": (file_of(b"{]"), "invalid JSON"),
    "header is no object": (file_of(b"[]", b""), "damaged"),
    "header is no UTF-8": (file_of(b'{"\xff":{}}'), "UTF-8"),
    "header is deep": (file_of(entry(b'"y":' + b"[" * 10**5 + b"]" * 10**5)), "recursion limit"),
    "a short tensor": (file_of({"x": X}, DATA[:-1]), "not fully covered"),
    "bytes behind the tensors": (file_of({"x": X}, DATA + b"\0"), "not fully covered"),
    "overlapping tensors": (file_of({"x": X, "y": X}), "invalid offset"),
    "a gap": (file_of({"x": {**X, "data_offsets": [4, 12]}}, DATA + DATA), "invalid offset"),
    "offsets backwards": (file_of({"x": {**X, "data_offsets": [8, 0]}}), "invalid offset"),
    "negative size": (file_of({"x": {**X, "shape": [-2]}}), "expected usize"),
    "float size": (file_of({"x": {**X, "shape": [2.0]}}), "expected usize"),
    "another shape": (file_of({"x": {**X, "shape": [3]}}), "damaged"),
    "overflowing shape": (file_of({"x": {**X, "shape": [2**40, 2**40]}}), "overflow"),
    "shape as long as a page": (
        file_of(entry(b'"dtype":"F32","shape":[%s],"data_offsets":[0,8]' % LONG)), "out of range",
    ),
    "nothing, but huge": (
        file_of({"x": {**X, "shape": [0, 2**63], "data_offsets": [0, 0]}}, b""),
        "shape that NumPy cannot hold",
    ),
    "too many dimensions": (
        file_of({"x": {**X, "shape": [1] * 70 + [2]}}), "shape that NumPy cannot hold",
    ),
    "NaN": (
        file_of(entry(b'"dtype":"F32","shape":[NaN],"data_offsets":[0,8]')), "invalid JSON",
    ),
    "unknown dtype": (file_of({"x": {**X, "dtype": "Q3"}}), "unknown variant"),
    "foreign dtype": (
        file_of({"x": {**X, "dtype": "F8_E4M3", "shape": [8]}}), "dualgrad does not have",
    ),
    "no dtype": (file_of(entry(b'"shape":[2],"data_offsets":[0,8]')), "missing field"),
    "bool of 7": (file_of({"x": {**X, "dtype": "BOOL", "shape": [8]}}, b"\7" * 8), "0 and 1"),
    "the same name again": (
        file_of(b'{"x":%s,"x":%s}' % ((json.dumps(X).encode(),) * 2)), "come again",
    ),
    "the same field again": (
        file_of(entry(b'"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]')),
        "duplicate field",
    ),
    "a long number aside": (
        file_of(entry(b'"y":%s,"dtype":"F32","shape":[2],"data_offsets":[0,8]' % LONG)), "damaged",
    ),
    "metadata of numbers": (file_of({"__metadata__": {"x": 1}}, b""), "expected a string"),
}  # fmt: skip

TREES = {
    "another version": (
        file_of({"__metadata__": {"dualgrad.version": "2", "dualgrad.tree": "1"}}, b""),
        "version 2",
    ),
    **{
        f"order {text}": (file_of({"__metadata__": {"dualgrad.order": text}}, b""), "a JSON list")
        for text in ('["x"]', "[0]", '{"x": 1}', "x", 9999 * "[")
    },
    "no version": (file_of({"__metadata__": {"dualgrad.tree": "1"}}, b""), "version None"),
    "no JSON": (with_tree("[1"), "expect: JSON"),
    "NaN": (with_tree("[NaN]"), "actual: NaN"),
    "Infinity": (with_tree("-Infinity"), "actual: -Infinity"),
    "a long number": (with_tree("9" * 5000), "4300"),
    "very deep": (with_tree("[" * 10**5 + "]" * 10**5), "levels"),
    "deep": (with_tree("[" * 400 + "]" * 400), "levels"),
    "a key twice": (with_tree('{"a": 1, "a": 2}'), "a key that comes twice"),
    "an int key twice": (with_tree({"$dict": [[1, 2], [True, 3]]}), "a key that comes twice"),
    "a list as a key": (with_tree({"$dict": [[[], 2]]}), "unhashable"),
    "no pair": (with_tree({"$dict": [[1, 2, 3]]}), "pairs of key and value"),
    "unknown mark": (with_tree({"$call": "os.system"}), "a value that dualgrad writes"),
    "mark and more": (with_tree({"$tuple": [], "a": 1}), "one key with"),
    "mark of another type": (with_tree({"$tuple": "ab"}), "a value that dualgrad writes"),
    "unknown float": (with_tree({"$float": "1e5"}), "a value that dualgrad writes"),
    "a tensor that is not there": (with_tree({"$tensor": "y"}), "not there: 'y'"),
    "a tensor twice": (with_tree([{"$tensor": "x"}] * 2, x=X), "used twice: 'x'"),
    "a tensor of no use": (with_tree([], x=X), "actual: 'x'"),
    "no number": (with_tree({"$scalar": "x"}, x=X), "a value of NumPy"),
    "bfloat16 for NumPy": (
        with_tree({"$array": "x"}, x={**X, "dtype": "BF16", "shape": [4]}), "a value of NumPy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name, tmp_path):
    content, words = FILES[name]
    refuse(tmp_path, content, words)


@pytest.mark.parametrize("name", TREES)
def test_damaged_structures(name, tmp_path):
    content, words = TREES[name]
    refuse(tmp_path, content, words)


def refuse(folder: Path, content: bytes, words: str) -> None:
    path = folder / "file"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        dg.load(path)
    message = str(error.value)
    assert words in message
    assert str(path) in message
    assert "hint:" in message
    assert len(message) < 2000


def test_what_is_right_is_read(tmp_path):
    """The cases above are damaged by what they name alone."""
    (tmp_path / "file").write_bytes(file_of({"x": X}))
    assert dg.load(tmp_path / "file")["x"].tolist() == [1.0, 2.0]
    (tmp_path / "file").write_bytes(with_tree({"a": {"$tensor": "x"}, "b": {"$tuple": []}}, x=X))
    assert dg.load(tmp_path / "file")["b"] == ()


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x04", b"\x80\x05"])
def test_lengths_that_look_like_a_pickle_are_lengths(start, tmp_path):
    length = int.from_bytes(start, "little")
    content = file_of(json.dumps({"x": X}).encode().ljust(length))
    assert content.startswith(start)
    (tmp_path / "file").write_bytes(content)
    assert dg.load(tmp_path / "file")["x"].tolist() == [1.0, 2.0]


def test_names_of_tensors_are_no_paths(tmp_path):
    (tmp_path / "file").write_bytes(
        file_of(
            {
                "../../x": X,
            }
        )
    )
    assert list(dg.load(tmp_path / "file")) == ["../../x"]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_huge_claim_takes_no_memory(tmp_path):
    """A file that says it is large is refused before memory is taken for what it says."""
    path = tmp_path / "file"
    path.write_bytes(struct.pack("<Q", 90_000_000) + b"{")
    os.truncate(path, 2**40)  # sparse: a hole, not a terabyte
    with pytest.raises(DataError, match="header"):
        dg.load(path)


SAMPLE = {"a": np.arange(3), "b": [dg.arange(5.0), (1, None, "text", float("inf"))], 3: 0.5}


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[bytes, Path]:
    path = tmp_path_factory.mktemp("sample") / "file"
    dg.save(SAMPLE, path)
    return path.read_bytes(), path.with_name("other")


def test_no_part_of_a_file_is_read(sample):
    content, path = sample
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError):
            dg.load(path)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_changed_bytes_are_refused_or_make_another_value(sample, data):
    """Whatever the bytes are: a value, or DataError; nothing else happens."""
    content, path = bytearray(sample[0]), sample[1]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        dg.load(path)


# -- models


@pytest.fixture
def run() -> tuple[nn.Module, optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, optim.Adam(model.parameters())


def bits(*parts: Any) -> str:
    return "".join(repr(p.state_dict()) for p in parts) + repr(dg.get_rng_state())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s["model"].pop("bias"), "missing     bias"),
        (lambda s: s["model"].update(more=dg.ones(1)), "unexpected  more"),
        (lambda s: s["model"].update(bias=dg.ones(3)), "shape       bias"),
        (lambda s: s["model"].update(bias="text"), "load_state_dict"),
        (
            lambda s: s["model"].update(bias=dg.ones(2, dtype=dg.float64)),
            r"model\.bias: float64 instead of float32",
        ),
        (
            lambda s: s["optimizer"]["state"][1].update(exp_avg=dg.ones(2, dtype=dg.int32)),
            r"optimizer\.state\.1\.exp_avg: int32 instead of float32",
        ),
        (lambda s: s["optimizer"]["state"][1].pop("exp_avg"), "parameter 1"),
        (lambda s: s["optimizer"]["state"][1].update(exp_avg=dg.ones(7)), "parameter 1"),
        (lambda s: s["optimizer"]["param_groups"][0].update(lr=-1.0), "lr"),
        (lambda s: s["optimizer"]["param_groups"][0].update(lr="1"), "lr"),
        (lambda s: s["optimizer"]["param_groups"].clear(), "groups"),
        (lambda s: s.update(rng_state=dg.ones(2)), "no state of a generator"),
    ],
)
def test_states_that_do_not_fit_change_nothing(change, words, run, tmp_path):
    model, optimizer = run
    state = {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict(),
             "rng_state": dg.get_rng_state()}  # fmt: skip
    dg.save(state, tmp_path / "file")
    state = dg.load(tmp_path / "file")
    change(state)
    dg.save(state, tmp_path / "file")
    model.weight.data.mul_(2.0)
    dg.randn(3)
    before = bits(*run)
    with pytest.raises(ArgumentError, match=words):
        dg.load_checkpoint(tmp_path / "file", model=model, optimizer=optimizer)
    assert bits(*run) == before


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, {"state": 1, "param_groups": 2}])
def test_states_of_other_kinds_change_nothing(value, run, tmp_path):
    model, optimizer = run
    dg.save({"model": model.state_dict(), "optimizer": value}, tmp_path / "file")
    model.weight.data.mul_(2.0)
    before = bits(*run)
    with pytest.raises((ArgumentError, TypeError, KeyError, AttributeError)):
        dg.load_checkpoint(tmp_path / "file", model=model, optimizer=optimizer, restore_rng=False)
    assert bits(*run) == before
