"""Files are replaced as a whole: a writer is killed at each step, and at any moment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import dualgrad as dg

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")

# Children save files whose tensors all hold one number; the parent kills them and reads.
KILLED = """
import os, random, signal, sys, time
import numpy as np
import dualgrad as dg

folder, kills = sys.argv[1], int(sys.argv[2])
path = os.path.join(folder, "run")
random.seed(0)

def value(k):
    numbers = dg.from_numpy(np.full(100_000, float(k)))
    return {"a": numbers, "b": [dg.from_numpy(np.full(7, float(k))), k]}

def read():
    found = dg.load(path)
    numbers = {found["b"][1], *np.unique(found["a"].numpy()), *np.unique(found["b"][0].numpy())}
    assert len(numbers) == 1, numbers
    return numbers.pop()

began = time.perf_counter()
dg.save(value(0), path)
needs = time.perf_counter() - began
last, moved = 0, 0
for k in range(kills):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        k = last
        while True:
            k += 1
            dg.save(value(k), path)
            os.write(tell, b".")
    if k % 2:
        os.read(told, 1)  # the first file is complete
    time.sleep(random.uniform(0.0, 2 * needs))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    now = read()
    assert now >= last
    moved += now > last
    last = now
    os.close(told)
    os.close(tell)
print(moved, last)
"""

STEPS = """
import os, signal, sys
import dualgrad as dg

path = os.path.join(sys.argv[1], "run")

def killing(original, number, after):
    calls = iter(range(1, number))

    def call(*args):
        if next(calls, None) is not None:
            return original(*args)
        if after:
            original(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    return call

for name, number in (("open", 1), ("fsync", 1), ("replace", 1), ("fsync", 2)):
    for after in (False, True):
        dg.save(["old"], path)
        child = os.fork()
        if not child:
            setattr(os, name, killing(getattr(os, name), number, after))
            dg.save(["new"], path)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGKILL
        print(name, number, "after" if after else "before", *dg.load(path))
"""


def start(program: str, *args: object) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300)


def check_kills(folder: Path, kills: int) -> None:
    done = start(KILLED, folder, kills)
    assert done.returncode == 0, done.stderr
    moved, last = map(int, done.stdout.split())
    assert last >= moved >= kills // 2


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path):
    check_kills(tmp_path, 60)


@pytest.mark.slow
def test_many_kills(tmp_path):
    check_kills(tmp_path, 400)


def test_a_kill_at_each_step(tmp_path):
    done = start(STEPS, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "open 1 before old",
        "open 1 after old",
        "fsync 1 before old",
        "fsync 1 after old",
        "replace 1 before old",
        "replace 1 after new",
        "fsync 2 before new",
        "fsync 2 after new",
    ]


def noted(name, original, steps):
    """A function of `os` that notes its calls."""

    def call(*args):
        folder = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
        steps.append((name, folder))
        return original(*args)

    return call


def test_what_is_renamed_is_on_the_disk(tmp_path, monkeypatch):
    """The file is flushed before it gets its name, the folder afterwards."""
    steps = []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name, getattr(os, name), steps))
    dg.save([1], tmp_path / "x")
    assert steps == [("fsync", False), ("replace", False), ("fsync", True)]


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(name, tmp_path, monkeypatch):
    dg.save(["old"], tmp_path / "x")

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        with pytest.raises(OSError, match="No space"):
            dg.save(["new"], tmp_path / "x")
    assert dg.load(tmp_path / "x") == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
