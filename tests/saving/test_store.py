"""Values in files: what comes back, in which format, and what is refused."""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.dtype import ALL, NATIVE
from dualgrad.runtime.errors import ArgumentError, DataError


def same(a: Any, b: Any) -> bool:
    """Whether two values are of the same types and bits."""
    if isinstance(a, dg.Tensor):
        return (
            isinstance(b, dg.Tensor)
            and a.dtype is b.dtype
            and a.shape == b.shape
            and np.ascontiguousarray(a.detach().storage()).tobytes() == b.storage().tobytes()
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def kept(value: Any, folder: Path) -> Any:
    dg.save(value, folder / "value")
    return dg.load(folder / "value")


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


# -- what comes back


@pytest.mark.parametrize("dtype", ALL, ids=lambda d: d.name)
def test_every_dtype_comes_back(dtype, tmp_path, rng):
    bits = rng.integers(0, 2 if dtype is dg.bool_ else 256, (3, 5, dtype.itemsize), np.uint8)
    x = dg.creation.from_storage(bits.view(dtype.numpy)[..., 0], dtype)
    assert same(x, kept(x, tmp_path))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[1:, ::2],
        lambda x: x[:, 2],
        lambda x: x[:0],
        lambda x: x[1, 2],
        lambda x: x[:1].expand(6, 4),
        lambda x: x.requires_grad_(),
    ],
    ids=["transposed", "steps", "column", "empty", "scalar", "expanded", "requires_grad"],
)
@pytest.mark.parametrize("dtype", [dg.float32, dg.bfloat16, dg.float64], ids=lambda d: d.name)
def test_tensors_in_any_order_of_memory_come_back(view, dtype, tmp_path):
    x = view(dg.arange(24, dtype=dg.float32).reshape(6, 4).to(dtype))
    loaded = kept({"x": x}, tmp_path)["x"]
    assert same(x, loaded)
    assert loaded.storage().flags.c_contiguous
    assert not loaded.requires_grad


@pytest.mark.parametrize("names", [["b", "a"], ["2", ""], ["a", "c", "b"]])
@pytest.mark.parametrize("size", [0, 2])
def test_tensors_come_back_in_their_order(names, size, tmp_path):
    value = {name: dg.zeros(size) for name in names}
    for _ in range(3):
        assert list(kept(value, tmp_path)) == names


def test_loaded_tensors_can_be_changed(tmp_path):
    x = kept([dg.zeros(3)], tmp_path)[0]
    x += 1
    assert x.tolist() == [1.0, 1.0, 1.0]


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**200), 2**200),
        st.floats(),
        st.text(),
        st.sampled_from([np.float32(1.5), np.int64(-3), np.bool_(True), np.float16("nan")]),
        st.builds(lambda n: np.arange(n, dtype=np.int16)[::-1], st.integers(0, 3)),
        st.builds(lambda n: dg.arange(n, dtype=dg.bfloat16), st.integers(0, 3)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.dictionaries(
            st.one_of(st.integers(), st.text(max_size=2), st.tuples(st.integers(), st.none())),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=12,
)


@given(value=VALUES)
@settings(max_examples=150, deadline=None)
def test_values_come_back_with_their_types(value, tmp_path_factory):
    assert same(value, kept(value, tmp_path_factory.getbasetemp()))


def test_keys_that_look_like_paths_stay_apart(tmp_path):
    x = [dg.full((2,), float(k)) for k in range(5)]
    value = {"a.b": x[0], "a": {"b": x[1], "b'": x[2]}, "$tensor": "a.b", "": x[3]}
    assert same(value, kept(value, tmp_path))
    value = {"__metadata__": x[4], "__metadata__'": x[0]}
    assert same(value, kept(value, tmp_path))


def test_an_ordered_dict_becomes_a_dict(tmp_path):
    assert kept(OrderedDict(b=1, a=2), tmp_path) == {"b": 1, "a": 2}


def test_state_of_a_model(model, tmp_path):
    dg.save(model.state_dict(), tmp_path / "m.safetensors")
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    other.load_state_dict(dg.load(tmp_path / "m.safetensors"))
    assert same(dict(model.state_dict()), dict(other.state_dict()))


# -- the format


@pytest.mark.parametrize("dtype", NATIVE, ids=lambda d: d.name)
def test_other_readers_and_writers_agree(dtype, tmp_path):
    arrays = {"b": np.arange(6).reshape(2, 3).astype(dtype.numpy), "a": np.ones((), dtype.numpy)}
    dg.save({k: dg.from_numpy(v) for k, v in arrays.items()}, tmp_path / "ours")
    theirs = safetensors.numpy.load_file(tmp_path / "ours")
    assert same(dict(sorted(theirs.items())), dict(sorted(arrays.items())))
    safetensors.numpy.save_file(arrays, tmp_path / "theirs", {"format": "np"})
    loaded = dg.load(tmp_path / "theirs")
    assert same({k: loaded[k].numpy() for k in arrays}, arrays)


def test_files_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    state = {"x": torch.randn(3, 2), "y": torch.randn(4, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "theirs")
    loaded = dg.load(tmp_path / "theirs")
    assert loaded["y"].dtype is dg.bfloat16
    dg.save(loaded, tmp_path / "ours")
    back = load_file(tmp_path / "ours")
    assert all(torch.equal(state[k], back[k]) and state[k].dtype == back[k].dtype for k in state)


def test_tensors_lie_under_their_paths(model, tmp_path):
    dg.save({"model": model.state_dict(), "losses": [dg.zeros(1)], "step": 3}, tmp_path / "x")
    with safetensors.safe_open(tmp_path / "x", "np") as file:
        assert sorted(file.keys()) == [
            "losses.0", "model.0.bias", "model.0.weight", "model.2.bias", "model.2.weight",
        ]  # fmt: skip
        tree = json.loads(file.metadata()["dualgrad.tree"])
    assert tree["step"] == 3
    assert tree["model"]["0.bias"] == {"$tensor": "model.0.bias"}


# -- files


def test_a_file_has_the_mode_of_other_files(tmp_path):
    path = tmp_path / "x"
    before = os.umask(0o027)
    try:
        dg.save([1], path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        dg.save([2], path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(before)


def test_a_link_keeps_its_place(tmp_path):
    (tmp_path / "link").symlink_to("real")
    dg.save([1], tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert dg.load(tmp_path / "real") == [1]


def test_nothing_is_left_of_what_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError):
        dg.save([1], tmp_path / "no" / "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        dg.save([1], tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_abandoned_parts_go_and_young_ones_stay(tmp_path):
    old, young = tmp_path / ".x.1-0.part", tmp_path / ".x.1-1.part"
    for path in (old, young, tmp_path / "x.part"):
        path.touch()
    os.utime(old, (1, 1))
    os.utime(tmp_path / "x.part", (1, 1))
    dg.save([1], tmp_path / "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".x.1-1.part", "x", "x.part"]


# -- what is refused


class Thing:
    pass


def nested(depth: int) -> Any:
    return [] if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, Thing()]}, r"\['a'\]\[1\] is a value of type .*Thing"),
        (Thing(), "the value is a value of type"),
        ({"f": max}, r"\['f'\] is a value of type builtins.builtin_function_or_method"),
        ({1, 2}, "of type builtins.set"),
        ([b"bytes"], r"\[0\] is a value of type builtins.bytes"),
        ([1j], "complex"),
        ([np.array(["text"])], "a NumPy array of dtype <U4"),
        ([np.array([1j])], "a NumPy array of dtype complex128"),
        ([np.array([object()])], "a NumPy array of dtype object"),
        ({frozenset(): 1}, "a dict with keys of type frozenset"),
        ([2**5000], "an int that is too long"),
        (nested(70), "a value in 64 others"),
    ],
)
def test_values_that_cannot_be_saved(value, words, tmp_path):
    dg.save(["old"], tmp_path / "x")
    with pytest.raises(ArgumentError, match=words):
        dg.save(value, tmp_path / "x")
    assert dg.load(tmp_path / "x") == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_value_in_itself_is_refused(tmp_path):
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ArgumentError, match="a value in 64 others"):
        dg.save(value, tmp_path / "x")


def test_nesting_up_to_the_limit(tmp_path):
    value: Any = 0
    for k in range(64):
        value = {k: value} if k % 2 else (value,)
    assert same(value, kept(value, tmp_path))


def test_too_much_text_is_refused_before_the_file_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr("dualgrad.saving.weights._LONGEST_HEADER", 1000)
    dg.save(["old"], tmp_path / "x")
    with pytest.raises(ArgumentError, match="too much besides the tensors"):
        dg.save(["x" * 1000], tmp_path / "x")
    assert dg.load(tmp_path / "x") == ["old"]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        dg.load(tmp_path / "no")
    with pytest.raises(IsADirectoryError):
        dg.load(tmp_path)
    with pytest.raises(DataError, match=r"is no file(.|\n)*regular file"):
        dg.load("/dev/zero")


@pytest.mark.parametrize("path", [3, None, b"name", io.BytesIO(), ["x"], {}])
def test_names_of_files_that_are_none(path):
    words = r"no name of a file(.|\n)*str or an os.PathLike"
    with pytest.raises(ArgumentError, match=words):
        dg.load(path)
    with pytest.raises(ArgumentError, match=words):
        dg.save([1], path)
    with pytest.raises(ArgumentError, match=r"the value comes first"):
        dg.save("name", {"x": dg.ones(1)})


def test_names_of_files_may_be_as_long_as_names_can_be(tmp_path):
    path = tmp_path / ("x" * 255)
    dg.save([1], path)
    assert dg.load(path) == [1]


def test_pickles_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"x": torch.ones(2)}, tmp_path / "new.pt")
    torch.save({"x": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("new.pt", "old.pt"):
        with pytest.raises(DataError, match=r"pickle or a zip archive(.|\n)*convert a file"):
            dg.load(tmp_path / name)


def test_nan_stays_what_it_is(tmp_path):
    value = kept({"nan": math.nan, "inf": -math.inf, "zero": -0.0, "max": 1.7976931348623157e308},
                 tmp_path)  # fmt: skip
    assert math.isnan(value["nan"])
    assert value["inf"] == -math.inf
    assert math.copysign(1, value["zero"]) == -1
    assert value["max"] == 1.7976931348623157e308


def test_texts_of_any_characters(tmp_path):
    value = {"clé": "\ud800 lone", "\x00": "\u2028\\\"'", "\ud800": dg.ones(1)}
    assert same(value, kept(value, tmp_path))
    assert re.match("clé", next(iter(kept(value, tmp_path))))
