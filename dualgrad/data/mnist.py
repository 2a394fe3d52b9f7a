"""The MNIST handwritten digits.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".  The SHA-256
values are those of the four published .gz files.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_numpy
from dualgrad.data.dataset import TensorDataset
from dualgrad.data.idx import read_idx
from dualgrad.runtime.config import user_cache_folder
from dualgrad.runtime.errors import DataError
from dualgrad.runtime.records import dataclass

MIRRORS: Final = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
_TIMEOUT_SECONDS: Final = 30
_MAX_BYTES: Final = 16 << 20
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Archive:
    """One of the published files.

    stem    "train-images"
    kind    "idx3-ubyte"
    sha256  of the published .gz file
    """

    stem: str
    kind: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.stem}-{self.kind}.gz"

    def find(self, folder: Path) -> Path | None:
        """Return its path in `folder`, under any of its usual names."""
        names = (f"{self.stem}{dot}{self.kind}{end}" for dot in "-." for end in ("", ".gz"))
        return next((folder / name for name in names if (folder / name).is_file()), None)


ARCHIVES: Final = (
    Archive("train-images", "idx3-ubyte",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    Archive("train-labels", "idx1-ubyte",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    Archive("t10k-images", "idx3-ubyte",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    Archive("t10k-labels", "idx1-ubyte",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
)  # fmt: skip


def mnist(root: str | os.PathLike[str] | None = None) -> tuple[TensorDataset, TensorDataset]:
    """Return the training set (60 000 digits) and the test set (10 000).

    Each has images float32 [n, 1, 28, 28] in 0..1 and labels int64 [n].  The four IDX files, with
    or without gzip, are read from `root`; without `root` from $DUALGRAD_DATA/mnist or from the
    user's cache folder, and if they are in neither, they are downloaded into the latter.

    Raises DataError if files are missing or damaged, or cannot be downloaded.
    """
    folder = find_mnist(root)
    if folder is None:
        folder = _download_folder() if root is None else Path(root)
        if root is None:
            download(folder)
    found = [_require(archive, folder) for archive in ARCHIVES]
    return _read_split(found[0], found[1]), _read_split(found[2], found[3])


def find_mnist(root: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder from which `mnist(root)` would read without a download, or None."""
    if root is not None:
        folders = [Path(root)]
    else:
        data, cache = os.environ.get("DUALGRAD_DATA"), user_cache_folder()
        folders = [Path(data).expanduser() / "mnist"] if data else []
        folders += [cache / "data" / "mnist"] if cache is not None else []
    complete = (f for f in folders if all(archive.find(f) for archive in ARCHIVES))
    return next(complete, None)


def download(folder: Path, mirrors: Sequence[str] = MIRRORS) -> None:
    """Fetch the files that `folder` lacks, from the first mirror that has the right content.

    A file appears under its name only when it is complete and its SHA-256 is right.

    Raises DataError if no mirror gives a file.
    """
    for archive in ARCHIVES:
        if archive.find(folder) is None:
            _download_one(archive, folder, mirrors)


def _download_one(archive: Archive, folder: Path, mirrors: Sequence[str]) -> None:
    failures = []
    for mirror in mirrors:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _fetch(mirror + archive.name, folder / archive.name, archive.sha256)
            return
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {error}")
    raise DataError(
        f"{archive.name} could not be downloaded",
        op="mnist",
        actual="; ".join(failures),
        hint=f"put the four files of MNIST ({', '.join(a.name for a in ARCHIVES)}) into {folder}, "
        "or into $DUALGRAD_DATA/mnist, or pass their folder as root",
    )


def _fetch(url: str, path: Path, sha256: str) -> None:
    """Download to a temporary neighbour of `path`, check, and rename.

    Raises OSError if the transfer fails, ValueError if the content is not the expected one.
    """
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            actual = _copy(url, file)
        if actual != sha256:
            raise ValueError(f"SHA-256 {actual} instead of {sha256}")
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def _copy(url: str, file: BinaryIO) -> str:
    """Write the content of `url` to `file` and return its SHA-256."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if size > _MAX_BYTES:
                raise ValueError(f"more than {_MAX_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _download_folder() -> Path:
    cache = user_cache_folder()
    if cache is None:
        raise DataError(
            "there is no cache folder to download MNIST to",
            op="mnist",
            why="the user has no home folder",
            hint="put the files into $DUALGRAD_DATA/mnist, or pass their folder as root",
        )
    return cache / "data" / "mnist"


def _require(archive: Archive, folder: Path) -> Path:
    path = archive.find(folder)
    if path is None:
        raise DataError(
            f"{folder} has no {archive.name}",
            op="mnist",
            expect=", ".join(a.name for a in ARCHIVES),
            hint=f"names without .gz, and with .{archive.kind}, are found too; "
            "without root, the files are downloaded",
        )
    return path


def _read_split(images: Path, labels: Path) -> TensorDataset:
    pixels, digits = read_idx(images), read_idx(labels)
    _check_split(images, pixels, labels, digits)
    scaled = np.divide(pixels[:, None], np.float32(255), dtype=np.float32)
    return TensorDataset(from_numpy(scaled), from_numpy(digits.astype(np.int64)))


def _check_split(images: Path, pixels: NDArray[Any], labels: Path, digits: NDArray[Any]) -> None:
    for path, array, shape in ((images, pixels, "(n, 28, 28)"), (labels, digits, "(n,)")):
        actual = str(("n", *array.shape[1:])).replace("'", "")
        if array.dtype != np.uint8 or actual != shape:
            raise DataError(
                f"{path} does not hold what MNIST has there",
                op="mnist",
                expect=f"uint8 {shape}",
                actual=f"{array.dtype} {array.shape}",
                hint="download the file again, under its own name",
            )
    if len(pixels) != len(digits):
        raise DataError(
            f"{images} and {labels} differ in their number of digits",
            op="mnist",
            actual=f"{len(pixels)} images, {len(digits)} labels",
            hint="download both files again, from one place",
        )
    if digits.size and digits.max() > 9:
        wrong = int(np.argmax(digits > 9))
        raise DataError(
            f"{labels} has a label that is no digit",
            op="mnist",
            expect="0..9",
            actual=f"{digits[wrong]} at index {wrong}",
            hint="download the file again",
        )
