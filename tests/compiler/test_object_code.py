"""Object code: by several threads at once, beside a fork, beside the program that calls it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import dispatch, engine
from dualgrad.backends import cpu as backend
from dualgrad.compiler.lower.llvm.gemm import routine_module
from dualgrad.compiler.lower.llvm.target import object_code
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.linker import host_target

NAMES = ("gemm_f32", "gemm_f64", "gemm_i32")


def made(name: str) -> bytes:
    return object_code(routine_module(name, host_target()), host_target())


def test_threads_make_what_one_makes() -> None:
    alone = [made(name) for name in NAMES]
    with ThreadPoolExecutor(3) as threads:
        assert [*threads.map(made, NAMES)] == alone


def test_errors_come_from_threads() -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(CompileError, match="expected"):
        threads.submit(object_code, "define nonsense", host_target()).result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_beside_finds_llvm_whole() -> None:
    expected = made("gemm_f32")
    thread = threading.Thread(target=made, args=("gemm_f64",))
    thread.start()
    child = os.fork()
    if not child:
        os._exit(0 if made("gemm_f32") == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()


def test_routines_are_made_beside_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in the hands of LLVM at once: each waits for the other to begin."""
    met = threading.Barrier(2, timeout=60)

    def meeting(text: str, target: object) -> bytes:
        met.wait()
        return object_code(text, host_target())

    monkeypatch.setattr(backend, "_addresses", {})
    monkeypatch.setattr(backend.codegen, "object_code", meeting, raising=False)
    dispatch.forget()
    engine._codes.clear()
    a = np.arange(12, dtype=np.float64).reshape(3, 4)
    with config.scope(cache_dir=tmp_path):
        product = dg.from_numpy(a) @ dg.from_numpy(a.T.copy())
    assert (product.numpy() == a @ a.T).all()
    dispatch.forget()
