"""The command `dualgrad`: the disk cache looked at, cleared and filled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import warming
from dualgrad.command_line import main
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.cache import DiskCache
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError

ROOT = Path(__file__).resolve().parent.parent


def fields(text: str) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in text.splitlines())


def cache(folder: Path, *words: str) -> int:
    return main(["cache", "--folder", str(folder), *words])


def test_script_of_the_package_is_the_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["dualgrad"].partition(":")
    assert getattr(import_module(module), name) is main


def test_info_and_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cache(tmp_path, "info") == 0
    found = fields(capsys.readouterr().out)
    assert found["folder"] == str(tmp_path)
    assert (found["state"], found["entries"]) == ("in use", "0")
    kept = DiskCache(tmp_path)
    for key in "abc":
        kept.put(key, bytes(1 << 20))
    (tmp_path / "note.txt").write_text("of somebody else's")
    assert cache(tmp_path, "info") == 0
    found = fields(capsys.readouterr().out)
    assert found["entries"] == "3"
    assert found["size"].startswith("3.0 MiB of at most 512.0 MiB")
    assert cache(tmp_path, "clear") == 0
    assert capsys.readouterr().out == f"3 entries (3.0 MiB) deleted from {tmp_path}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["note.txt"]


def test_folder_of_the_environment_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with config.scope(cache_dir=tmp_path):
        assert main(["cache", "info"]) == 0
    assert fields(capsys.readouterr().out)["folder"] == str(tmp_path)


ONLY_A_CALL = """
import json
import dualgrad as dg
from dualgrad.runtime.profile import counters
x = dg.ones(5, 7, requires_grad=True)
y = dg.tanh(x)
y.backward(y.detach())
print(json.dumps([counters.compiled, counters.cache_hits]))
"""


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "DG_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("jobs", [1, 2])
def test_warm_leaves_nothing_to_compile(tmp_path: Path, jobs: int) -> None:
    names = ("tanh", "expand")
    said = run(tmp_path, "-m", "dualgrad", "cache", "warm", *names, "--jobs", str(jobs))
    first = said.splitlines()
    assert f"calls of {len(names)} ops and functions" in first[0]
    assert first[0].endswith(f"{jobs} jobs")
    assert int(first[1].split()[0]) > 0
    compiled, hits = json.loads(run(tmp_path, "-c", ONLY_A_CALL))
    assert hits > 0
    assert compiled == 0
    again = run(tmp_path, "-m", "dualgrad", "cache", "warm", *names, "--jobs", str(jobs))
    assert again.splitlines()[1].startswith("0 programs compiled")


def test_dtypes_and_gradients_are_a_choice(tmp_path: Path) -> None:
    with config.scope(cache_dir=tmp_path):
        plain = warming.warm_unit("tanh", ["float64"], gradients=False)
        more = warming.warm_unit("tanh", ["float64"], gradients=True)
    assert plain.calls == more.calls > 0
    assert plain.refused == more.refused == 0


def test_calls_that_a_dtype_does_not_allow_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [Sample(lambda x: dg.bitwise_and(x, 1), (Arg((3,)),)), Sample(dg.tanh, (Arg((3,)),))]
    monkeypatch.setattr(warming, "units", lambda: {"bits": samples})
    done = warming.warm_unit("bits", ["float32", "float64"], gradients=False)
    assert (done.calls, done.refused) == (4, 2)


def test_all_units_have_everyday_samples() -> None:
    found = warming.units()
    assert {"add", "mat_mul", "softmax", "sum", "layer_norm"} <= set(found)
    assert warming.units_named([]) == list(found)
    assert warming.units_named(["matmul", "Layer_Norm"]) == ["mat_mul", "layer_norm"]
    deepest = max(len(a.shape) for s in found["add"] for a in s.args if hasattr(a, "shape"))
    assert deepest == 4


def test_unknown_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match="no such op"):
        warming.units_named(["softmx"])
    assert cache(tmp_path, "warm", "softmx") == 1
    shown = capsys.readouterr().err
    for part in ("dualgrad: [warm] there is no such op", "actual: softmx", "did you mean softmax"):
        assert part in shown
    assert ".py" not in shown  # no line of the user's is at fault


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "required: COMMAND"),
        (["cache"], "required: ACTION"),
        (["cache", "burn"], "invalid choice: 'burn'"),
        (["cache", "warm", "--dtypes", "int32"], "'int32' is none of float16"),
        (["cache", "warm", "--dtypes", "float33"], "'float33' is none of float16"),
        (["cache", "warm", "--jobs", "0"], "'0' is no number of at least 1"),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("action", ["clear", "warm"])
def test_cache_that_is_off(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with config.scope(cache=False):
        assert main(["cache", action]) == 1
    shown: Any = capsys.readouterr().err
    assert "the disk cache is not used" in shown
    assert "it is switched off" in shown
    assert "DG_CACHE=1" in shown


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")
def test_folder_that_others_can_write_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o777)
    assert cache(tmp_path, "info") == 0
    assert fields(capsys.readouterr().out)["state"] == "not used: other users can write it"
    assert cache(tmp_path, "clear") == 1
    assert "other users can write it" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("dualgrad  ")
