"""The disk cache: what is put comes back, or nothing does."""

import hashlib
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dualgrad.runtime.cache import DiskCache, default_cache
from dualgrad.runtime.config import config

KEY, DATA = "kernel|f32|skylake", bytes(range(256)) * 5


@pytest.fixture
def cache(tmp_path):
    return DiskCache(tmp_path / "cache")


def files(cache):
    return sorted(cache.root.iterdir()) if cache.root.exists() else []


def counts(cache):
    return cache.hits, cache.misses, cache.rejected


def test_round_trip(cache):
    assert cache.get(KEY) is None
    cache.put(KEY, DATA)
    cache.put("empty", b"")
    cache.put("schlüssel", b"1")
    assert cache.get(KEY) == DATA
    assert cache.get("empty") == b""
    assert cache.get("schlüssel") == b"1"
    assert cache.get("other") is None
    assert counts(cache) == (3, 2, 0)
    assert DiskCache(cache.root).get(KEY) == DATA


def test_a_key_can_be_written_again(cache):
    cache.put(KEY, DATA)
    cache.put(KEY, b"new")
    assert cache.get(KEY) == b"new"
    assert len(files(cache)) == 1


def test_every_flipped_byte_is_noticed(cache):
    cache.put(KEY, DATA[:40])
    (path,) = files(cache)
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        assert cache.get(KEY) is None, position
        assert not path.exists()
        path.touch(0o600)
    assert cache.rejected == len(good)


def test_every_truncation_and_extension_is_noticed(cache):
    cache.put(KEY, DATA[:40])
    (path,) = files(cache)
    good = path.read_bytes()
    for bad in (*(good[:length] for length in range(len(good))), good + b"\0", b""):
        path.touch(0o600)
        path.write_bytes(bad)
        assert cache.get(KEY) is None
        assert not path.exists()


def test_an_entry_of_another_key_is_noticed(cache):
    cache.put("a", b"1")
    (path,) = files(cache)
    cache.put("b", b"2")
    other = next(p for p in files(cache) if p != path)
    shutil.copy(other, path)
    assert cache.get("a") is None
    assert cache.get("b") == b"2"
    assert counts(cache) == (1, 1, 1)


def test_files_and_folder_are_private(cache):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    assert path.stat().st_mode & 0o777 == 0o600
    assert cache.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_loaded(cache, mode):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    path.chmod(mode)
    assert cache.get(KEY) is None
    assert counts(cache) == (0, 1, 1)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_not_used(cache, mode):
    cache.put(KEY, DATA)
    cache.root.chmod(mode)
    assert cache.get(KEY) is None
    cache.put("new", DATA)
    assert len(files(cache)) == 1
    assert cache.info().problem == "other users can write it"
    cache.root.chmod(0o700)
    assert cache.get(KEY) == DATA


@pytest.mark.skipif(getattr(os, "geteuid", int)() != 0, reason="only root can give files away")
def test_what_belongs_to_others_is_not_loaded(cache):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    os.chown(cache.root, 12345, -1)
    assert cache.get(KEY) is None
    assert cache.info().problem == "it belongs to another user"
    os.chown(cache.root, os.geteuid(), -1)
    os.chown(path, 12345, -1)
    assert cache.get(KEY) is None
    assert cache.rejected == 1


def test_a_link_is_not_followed(cache, tmp_path):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.get(KEY) is None


def test_a_place_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file" / "cache", tmp_path / "file", Path(os.devnull) / "cache"):
        cache = DiskCache(root)
        cache.put(KEY, DATA)
        assert cache.get(KEY) is None
        cache.trim()
        cache.clear()
        assert cache.info().entries == 0
    assert (tmp_path / "file").read_text() == ""


def test_a_folder_in_the_place_of_an_entry_does_no_harm(cache):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    path.unlink()
    path.mkdir()
    assert cache.get(KEY) is None
    cache.put(KEY, DATA)
    assert cache.get(KEY) is None
    assert [p for p in files(cache) if p != path] == []


def test_switched_off():
    cache = DiskCache(None)
    cache.put(KEY, DATA)
    assert cache.get(KEY) is None
    assert cache.info().problem == "it is switched off"


def test_clear_and_info(cache):
    for i in range(5):
        cache.put(str(i), DATA)
    (cache.root / "note.txt").write_text("not ours")
    info = cache.info()
    assert (info.entries, info.problem, info.root) == (5, "", cache.root)
    assert info.bytes == sum(p.stat().st_size for p in files(cache)) - len("not ours")
    cache.clear()
    assert [p.name for p in files(cache)] == ["note.txt"]
    assert cache.info().entries == 0


def test_trim_removes_the_oldest(tmp_path):
    cache = DiskCache(tmp_path, limit=4000)
    for i in range(4):
        cache.put(str(i), bytes(800))
        os.utime(cache._path(tmp_path, str(i).encode()), (i + 1000, i + 1000))
    cache.limit = 2000
    cache.trim()
    assert [cache.get(str(i)) is not None for i in range(4)] == [False, False, True, True]


def test_size_stays_bounded_without_calling_trim(tmp_path):
    cache = DiskCache(tmp_path, limit=20_000)
    largest = 0
    for i in range(400):
        cache.put(str(i), bytes(900))
        largest = max(largest, len(files(cache)))
    assert largest < 400
    assert cache.info().bytes < 400 * 900 / 2


def test_an_object_above_the_limit_is_not_kept(tmp_path):
    cache = DiskCache(tmp_path, limit=1000)
    cache.put(KEY, bytes(1001))
    assert files(cache) == []


def test_use_makes_an_old_entry_young(cache):
    cache.put(KEY, DATA)
    (path,) = files(cache)
    os.utime(path, (1000, 1000))
    assert cache.get(KEY) == DATA
    assert path.stat().st_mtime > 1_000_000


def test_unfinished_files_are_removed_when_old(cache):
    cache.put(KEY, DATA)
    old, young = cache.root / "x.1.2.part", cache.root / "y.1.2.part"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    cache.trim()
    assert not old.exists()
    assert young.exists()


def test_a_failed_write_leaves_nothing(cache, monkeypatch):
    cache.put("first", b"")

    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        cache.put(KEY, DATA)
    assert len(files(cache)) == 1
    assert cache.get(KEY) is None


def test_many_processes_at_once(cache, tmp_path):
    program = """
        import hashlib, sys
        from pathlib import Path
        from dualgrad.runtime.cache import DiskCache
        cache = DiskCache(Path(sys.argv[1]), limit=200_000)
        for turn in range(6):
            for i in range(60):
                data = hashlib.sha256(str(i).encode()).digest() * 100
                found = cache.get(str(i))
                assert found is None or found == data
                cache.put(str(i), data)
            cache.trim()
        assert cache.rejected == 0
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(cache.root)]
    workers = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(3)
    ]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
    kept = [i for i in range(60) if cache.get(str(i)) is not None]
    assert kept
    for i in kept:
        assert cache.get(str(i)) == hashlib.sha256(str(i).encode()).digest() * 100
    assert all(path.suffix == ".dgo" for path in files(cache))


def test_default_cache_follows_the_config(tmp_path):
    with config.scope(cache=True, cache_dir=tmp_path):
        assert default_cache().root == tmp_path
        assert default_cache() is default_cache()
    with config.scope(cache=False):
        assert default_cache().root is None
