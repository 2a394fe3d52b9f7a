"""MNIST: small fabricated files for every path and error; the real files where they are."""

from __future__ import annotations

import gzip
import hashlib
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dualgrad.data import find_mnist, mnist, read_idx
from dualgrad.data.mnist import ARCHIVES, Archive, _download_one, download
from dualgrad.runtime.errors import DataError

STEMS = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "t10k-images": "t10k-images-idx3-ubyte",
    "t10k-labels": "t10k-labels-idx1-ubyte",
}

# SHA-256 of the published training images after decompression
PUBLISHED_TRAIN_IMAGES = "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"


def encode(array: NDArray[np.uint8]) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def contents() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return {
        "train-images": rng.integers(0, 256, (6, 28, 28), np.uint8),
        "train-labels": np.array([3, 1, 4, 1, 5, 9], np.uint8),
        "t10k-images": rng.integers(0, 256, (2, 28, 28), np.uint8),
        "t10k-labels": np.array([2, 6], np.uint8),
    }


def write(folder: Path, arrays: dict[str, NDArray[np.uint8]], dot: str = "-", gz: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in arrays.items():
        name = STEMS[stem].replace("-idx", f"{dot}idx") + gz
        data = encode(array)
        (folder / name).write_bytes(gzip.compress(data) if gz else data)
    return folder


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without data; returns the folder that downloads would go to."""
    monkeypatch.delenv("DUALGRAD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dualgrad" / "data" / "mnist"


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_reads_all_spellings(tmp_path: Path, dot: str, gz: str) -> None:
    arrays = contents()
    train, test = mnist(write(tmp_path, arrays, dot, gz))
    for data, split in ((train, "train"), (test, "t10k")):
        images, labels = (t.numpy() for t in data.tensors)
        assert images.dtype == np.float32
        assert labels.dtype == np.int64
        expect = arrays[f"{split}-images"][:, None].astype(np.float64) / 255
        np.testing.assert_allclose(images, expect, rtol=2**-24)
        assert np.array_equal(labels, arrays[f"{split}-labels"])


def test_search_order(nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_mnist() is None
    assert find_mnist(tmp_path) is None
    write(nowhere, contents())
    assert find_mnist() == nowhere
    monkeypatch.setenv("DUALGRAD_DATA", str(tmp_path / "data"))
    assert find_mnist() == nowhere
    write(tmp_path / "data" / "mnist", contents())
    assert find_mnist() == tmp_path / "data" / "mnist"
    assert find_mnist(nowhere) == nowhere
    assert len(mnist()[0]) == 6


def test_missing_file_is_named(tmp_path: Path) -> None:
    arrays = contents()
    del arrays["t10k-images"]
    with pytest.raises(DataError, match=r"has no t10k-images-idx3-ubyte\.gz"):
        mnist(write(tmp_path, arrays))


@pytest.mark.parametrize(
    ("stem", "array", "message"),
    [
        ("train-labels", np.zeros(5, np.uint8), "6 images, 5 labels"),
        ("t10k-labels", np.array([3, 10], np.uint8), "10 at index 1"),
        ("train-images", np.zeros((6, 27, 28), np.uint8), r"actual: uint8 \(6, 27, 28\)"),
        ("t10k-labels", np.zeros((2, 1), np.uint8), r"expect: uint8 \(n,\)"),
    ],
)
def test_wrong_contents(tmp_path: Path, stem: str, array: NDArray[np.uint8], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        mnist(write(tmp_path, contents() | {stem: array}))
    assert STEMS[stem] in caught.value.what


def served(folder: Path, content: bytes) -> tuple[Archive, str]:
    """An archive with this content, and the URL of a mirror that has it."""
    folder.mkdir()
    archive = replace(ARCHIVES[0], sha256=hashlib.sha256(content).hexdigest())
    (folder / archive.name).write_bytes(content)
    return archive, folder.as_uri() + "/"


def test_download_takes_the_first_good_mirror(tmp_path: Path) -> None:
    archive, good = served(tmp_path / "good", b"the right bytes")
    _, wrong = served(tmp_path / "wrong", b"other bytes")
    absent = (tmp_path / "absent").as_uri() + "/"
    cache = tmp_path / "deep" / "cache"
    _download_one(archive, cache, [absent, wrong, good])
    assert [path.name for path in cache.iterdir()] == [archive.name]
    assert (cache / archive.name).read_bytes() == b"the right bytes"


def test_failed_download_leaves_nothing_and_says_what_to_do(tmp_path: Path) -> None:
    _, wrong = served(tmp_path / "wrong", b"other bytes")
    absent = (tmp_path / "absent").as_uri() + "/"
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match="could not be downloaded") as caught:
        download(cache, [absent, wrong])
    assert list(cache.iterdir()) == []
    message = str(caught.value)
    for part in (absent, "SHA-256", ARCHIVES[0].sha256, str(cache), "$DUALGRAD_DATA/mnist", "root"):
        assert part in message


def test_download_keeps_files_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, contents())
    before = sorted(path.name for path in tmp_path.iterdir())
    download(tmp_path, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_real_files() -> None:
    folder = find_mnist()
    if folder is None:
        pytest.skip("MNIST is neither in $DUALGRAD_DATA/mnist nor in the cache folder")
    train, test = mnist(folder)
    decoded = hashlib.sha256(encode(read_idx(ARCHIVES[0].find(folder) or "")))
    assert decoded.hexdigest() == PUBLISHED_TRAIN_IMAGES
    counts = [np.bincount(data.tensors[1].numpy()).tolist() for data in (train, test)]
    assert counts[0] == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts[1] == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # the mean and deviation that everyone normalises with
    images = train.tensors[0].numpy()
    np.testing.assert_allclose(images.mean(dtype=np.float64), 0.1307, atol=5e-5)
    np.testing.assert_allclose(images.std(dtype=np.float64), 0.3081, atol=5e-5)
