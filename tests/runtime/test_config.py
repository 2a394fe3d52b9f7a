"""Settings from the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dualgrad.runtime.config import Config, config, user_cache_folder
from dualgrad.runtime.errors import ArgumentError


def test_defaults():
    found = Config({})
    assert (found.check, found.verify, found.eager, found.cache) == (False, False, False, True)
    assert found.num_threads is None
    assert found.cache_dir is None


@pytest.mark.parametrize("text", ["1", "true", "YES", " on "])
def test_words_for_true(text):
    found = Config({"DG_CHECK": text, "DG_VERIFY": text, "DG_EAGER": text})
    assert found.check
    assert found.verify
    assert found.eager


@pytest.mark.parametrize("text", ["0", "False", "no", "OFF"])
def test_words_for_false(text):
    assert not Config({"DG_CACHE": text}).cache


def test_empty_means_unset():
    found = Config(dict.fromkeys(["DG_CACHE", "DG_NUM_THREADS", "DG_CACHE_DIR"], ""))
    assert found.cache
    assert found.num_threads is None
    assert found.cache_dir is None


def test_values():
    found = Config({"DG_NUM_THREADS": "12", "DG_CACHE_DIR": "~/x"})
    assert found.num_threads == 12
    assert found.cache_dir == Path.home() / "x"


@pytest.mark.parametrize(
    ("variable", "value", "accepted"),
    [
        ("DG_CHECK", "maybe", "true"),
        ("DG_CACHE", "2", "off"),
        ("DG_NUM_THREADS", "0", "from 1"),
        ("DG_NUM_THREADS", "-3", "from 1"),
        ("DG_NUM_THREADS", "two", "whole number"),
        ("DG_NUM_THREADS", "1.5", "whole number"),
        ("DG_NUM_THREADS", "٣", "whole number"),
        ("DG_CACHE_DIR", "a\0b", "path"),
    ],
)
def test_bad_values_name_variable_value_and_choice(variable, value, accepted):
    with pytest.raises(ArgumentError) as caught:
        Config({variable: value})
    assert variable in caught.value.what
    assert caught.value.actual == repr(value)
    assert accepted in caught.value.expect


def test_bad_value_stops_the_import_with_the_users_line(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import dualgrad.runtime.config\n")
    done = subprocess.run(
        [sys.executable, str(program)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "DG_EAGER": "perhaps"},
        check=False,
    )
    assert done.returncode == 1
    assert "ArgumentError: DG_EAGER has a value it cannot have" in done.stderr
    assert "actual: 'perhaps'" in done.stderr
    assert "program.py:1 in <module>" in done.stderr


def test_scope_restores_even_after_an_error(tmp_path):
    def failing_scope():
        with config.scope(check=not before[0], num_threads=3, cache_dir=tmp_path):
            assert (config.check, config.num_threads, config.cache_dir) == (
                not before[0],
                3,
                tmp_path,
            )
            config.eager = not before[3]
            raise KeyError

    before = config.check, config.num_threads, config.cache_dir, config.eager
    with pytest.raises(KeyError):
        failing_scope()
    assert (config.check, config.num_threads, config.cache_dir, config.eager) == before


@pytest.mark.parametrize(
    "changes",
    [{"chek": True}, {"check": 1}, {"num_threads": 0}, {"num_threads": True}, {"cache_dir": "x"}],
)
def test_scope_refuses_what_does_not_fit(changes):
    with pytest.raises(ArgumentError, match=next(iter(changes))), config.scope(**changes):
        pass


def test_cache_folder_follows_xdg():
    assert user_cache_folder({"XDG_CACHE_HOME": "/big/disk"}) == Path("/big/disk/dualgrad")
    home = Path.home() / ".cache" / "dualgrad"
    assert user_cache_folder({}) == home
    assert user_cache_folder({"XDG_CACHE_HOME": "relative"}) == home
