"""Functions of the host inside of programs: memory, errors, threads, the disk cache."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad import linalg
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.kernel.ir import Block, Buffer, Call, Kernel
from dualgrad.compiler.kernel.printer import render
from dualgrad.compiler.kernel.verify import verify
from dualgrad.compiler.lower.reference import run
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.dtype import float64, int64
from dualgrad.runtime.errors import CompileError, DualgradError, LibraryError
from dualgrad.runtime.library import FUNCTIONS, callback, raise_failure
from dualgrad.runtime.program import HostCall

A = np.array([[4.0, 1.0], [2.0, 3.0]])
SINGULAR = np.ones((2, 2))


def call_kernel(**changes: Any) -> Kernel:
    x, y = Buffer("x", float64, 6), Buffer("y", int64, 6)
    shape = changes.pop("shape", (2, 3))
    call = Call("argsort", (1, 0), (), (Block(x, 0, shape),), Block(y, 0, (2, 3)), 0)
    return Kernel("k", (call, *changes.pop("more", ())))


def test_text_of_a_call() -> None:
    text = render(call_kernel())
    assert text.splitlines()[0] == "kernel k  # call"
    assert "y[2, 3] = call argsort(x[2, 3], 1, 0), else error 0" in text


def test_verifier_knows_calls() -> None:
    verify(call_kernel())
    with pytest.raises(CompileError, match="an array ends at 8 of x"):
        verify(call_kernel(shape=(2, 4)))
    (call,) = call_kernel().body
    with pytest.raises(CompileError, match="stands beside other statements"):
        verify(call_kernel(more=(call,)))
    assert isinstance(call, Call)
    block = Block(call.output.buffer, 0, (2, 3))
    with pytest.raises(CompileError, match="overwrites what it reads"):
        verify(Kernel("k", (Call("argsort", (1, 0), (), (block,), block, 0),)))


def test_interpreter_needs_the_function() -> None:
    memory = {"x": np.arange(6.0)[::-1].copy(), "y": np.zeros(6, np.int64)}
    with pytest.raises(CompileError, match="no function argsort"):
        run([call_kernel()], memory, {}, {})
    run([call_kernel()], memory, {}, {}, library=FUNCTIONS)
    assert memory["y"].tolist() == [2, 1, 0, 2, 1, 0]


def test_names_of_host_calls() -> None:
    call = HostCall("f", (1, "a", 0.1, (2, (3,))), (("float32", 2),), 1)
    assert HostCall.parse(call.name) == call
    assert HostCall.parse("gemm_f32") is None


# -- memory ---------------------------------------------------------------------------------------


def test_operands_are_copied_only_where_they_must_be() -> None:
    def kinds(function: Any, *types: dg.Tensor) -> list[str]:
        inputs = tuple(input_node(k, x.type) for k, x in enumerate(types))
        graph = Graph(inputs, (), (function(*inputs),))
        layouts = tuple(x.layout for x in types)
        return [k.kind for k in lower(graph, layouts, "f", 1).kernels]

    x = dg.ones(4, 4)
    assert kinds(linalg.inv, x) == ["call"]
    assert kinds(linalg.inv, dg.ones(4, 4).T) == ["map", "call"]
    assert kinds(lambda x: linalg.inv(x.transpose(0, 1)), x) == ["map", "call"]
    assert kinds(lambda x: linalg.inv(x.reshape(2, 8).reshape(4, 4)), x) == ["call"]
    assert kinds(lambda x: linalg.inv(x.narrow(0, 1, 2)), dg.ones(4, 2, 2)) == ["call"]
    assert kinds(lambda x: linalg.inv(x.narrow(1, 1, 2)), dg.ones(2, 4)) == ["map", "call"]
    assert kinds(lambda x: linalg.inv(x + 1) * 2, x) == ["map", "call", "map"]


def test_one_result_as_several_outputs_and_written_values() -> None:
    a = np.stack([A, A + 1])

    def f(x: dg.Tensor, y: dg.Tensor) -> Any:
        found = linalg.inv(x)
        y.copy_(found) if hasattr(y, "copy_") else y.mul_(0.0).add_(found)
        return found, found.reshape(8), found * 2, linalg.inv(found)

    def state() -> tuple[dg.Tensor, dg.Tensor]:
        memory = np.zeros((2, 2, 4))
        return dg.tensor(a), dg.from_numpy(memory[:, :, ::2])

    (x, y), (u, v) = state(), state()
    eager = f(x, y)
    compiled = dg.function(f, strict=True)
    for _ in range(2):
        static = compiled(u, v)
        same_bits(v, y)
        for got, want in zip(static, eager, strict=True):
            same_bits(got, want)
    np.testing.assert_array_equal(as_array(eager[0]), np.linalg.inv(a))


def test_a_value_written_to_strided_memory_is_read_row_major() -> None:
    def f(y: dg.Tensor, x: dg.Tensor) -> Any:
        y.mul_(0.0).add_(x * 2)
        return linalg.inv(y + 0.0), linalg.inv(x * 2)

    def state() -> tuple[dg.Tensor, dg.Tensor]:
        return dg.from_numpy(np.zeros((2, 4))[:, ::2]), dg.tensor(A)

    (y, x), (v, u) = state(), state()
    eager, static = f(y, x), dg.function(f, strict=True)(v, u)
    same_bits(v, y)
    for got, want in zip(static, eager, strict=True):
        same_bits(got, want)


def test_sizes_are_read_at_run_time() -> None:
    for n in (2, 3, 5, 3):
        a = np.random.default_rng(n).standard_normal((n, n)) + 9 * np.eye(n)
        np.testing.assert_array_equal(as_array(linalg.inv(dg.tensor(a))), np.linalg.inv(a))


def test_large_operands_release_the_lock() -> None:
    x = np.random.default_rng(0).standard_normal((3, 50_000)).astype(np.float32)
    same_bits(dg.argsort(dg.tensor(x)), np.argsort(x, axis=-1, kind="stable"))


def test_several_threads_at_once() -> None:
    rng = np.random.default_rng(1)
    matrices = [rng.standard_normal((4, 4)) + 9 * np.eye(4) for _ in range(4)]
    wrong: list[str] = []

    def work(a: Any, bad: bool) -> None:
        for _ in range(30):
            try:
                same_bits(linalg.inv(dg.tensor(a)), np.linalg.inv(a))
                if bad:
                    with pytest.raises(linalg.LinAlgError):
                        linalg.inv(dg.tensor(SINGULAR))
            except BaseException as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=work, args=(a, k % 2 == 0)) for k, a in enumerate(matrices)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "static"])
def test_a_singular_matrix(compiled: bool) -> None:
    function = dg.function(linalg.inv, strict=True) if compiled else linalg.inv
    function(dg.tensor(A))
    with pytest.raises(np.linalg.LinAlgError, match=r"\[inv\] singular matrix") as caught:
        function(dg.tensor(SINGULAR))
    assert isinstance(caught.value, linalg.LinAlgError)
    assert isinstance(caught.value, DualgradError)
    assert "test_library.py" in str(caught.value)
    same_bits(function(dg.tensor(A)), np.linalg.inv(A))


def test_a_function_may_handle_the_error() -> None:
    @dg.function
    def f(x: dg.Tensor) -> Any:
        try:
            return linalg.inv(x)
        except np.linalg.LinAlgError:
            return x * 0

    same_bits(f(dg.tensor(A)), np.linalg.inv(A))
    same_bits(f(dg.tensor(SINGULAR)), SINGULAR * 0)
    same_bits(f(dg.tensor(A)), np.linalg.inv(A))


def test_nothing_has_been_changed_when_a_call_fails() -> None:
    count = dg.zeros(2, 2, dtype=dg.float64)

    @dg.function(strict=True)
    def f(x: dg.Tensor) -> Any:
        count.add_(1.0)
        return linalg.inv(x) + count

    f(dg.tensor(A))
    with pytest.raises(linalg.LinAlgError):
        f(dg.tensor(SINGULAR))
    assert as_array(count)[0, 0] == 2  # by the repetition in eager mode, once


def test_any_exception_stops_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    call = HostCall("broken", (), (("float64", 1), ("float64", 1)), 0)

    def broken(out: Any, x: Any) -> None:
        raise error

    monkeypatch.setitem(FUNCTIONS, "broken", broken)
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(callback(call))
    x = np.ones(3)
    words = np.array([x.ctypes.data, 3, x.ctypes.data, 3])
    error: BaseException = OverflowError("Too much")
    assert entry(words.ctypes.data) == 0
    with pytest.raises(LibraryError, match=r"\[f\] too much") as caught:
        raise_failure("f", None)
    assert caught.value.__cause__ is error
    with pytest.raises(LibraryError, match="interrupted"):
        raise_failure("f", None)  # only once
    error = KeyboardInterrupt()
    assert entry(words.ctypes.data) == 0
    with pytest.raises(KeyboardInterrupt):
        raise_failure("f", None)


def test_inputs_cannot_be_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(out: Any, x: Any) -> None:
        x[0] = 5

    monkeypatch.setitem(FUNCTIONS, "writes", writes)
    call = HostCall("writes", (), (("float64", 1), ("float64", 1)), 0)
    entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(callback(call))
    x = np.ones(3)
    words = np.array([x.ctypes.data, 3, x.ctypes.data, 3])
    assert entry(words.ctypes.data) == 0
    with pytest.raises(LibraryError, match="read-only"):
        raise_failure("f", None)
    assert x[0] == 1


# -- the disk cache -------------------------------------------------------------------------------

SCRIPT = """
import dualgrad as dg
from dualgrad.runtime.profile import counters
print(dg.linalg.inv(dg.tensor([[2.0, 0.0], [0.0, 4.0]])).numpy().tolist(), counters.compiled)
"""


def test_code_from_the_disk_finds_the_function() -> None:
    def child() -> str:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    child()
    assert child() == "[[0.5, 0.0], [0.0, 0.25]] 0"
