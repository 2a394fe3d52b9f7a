"""Linking and launching programs."""

import ctypes
import gc
import math
import struct
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from dualgrad.runtime import cpu, linker
from dualgrad.runtime.config import config
from dualgrad.runtime.cpu import handle_offset_ok, handles, host_target, link_library, load
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.linker import host_object, target_of
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import (
    CONTEXT_EXTERNS,
    ERROR_CHECK_BITS,
    HANDLE_DATA_OFFSET,
    KernelInfo,
    Program,
    decode_error,
)

DATA = f"""
define internal ptr @data(ptr %handles, i64 %i) {{
  %handle.p = getelementptr ptr, ptr %handles, i64 %i
  %handle = load ptr, ptr %handle.p
  %data.p = getelementptr i8, ptr %handle, i64 {HANDLE_DATA_OFFSET}
  %data = load ptr, ptr %data.p
  ret ptr %data
}}
"""

# out[i] = x[i] * scale for i < n
SCALE = (
    DATA
    + """
define i64 @scale(ptr %handles, ptr %params, ptr %context) {
entry:
  %out = call ptr @data(ptr %handles, i64 0)
  %x = call ptr @data(ptr %handles, i64 1)
  %n = load i64, ptr %params
  %factor.p = getelementptr i64, ptr %params, i64 1
  %factor = load double, ptr %factor.p
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %x.p = getelementptr double, ptr %x, i64 %i
  %value = load double, ptr %x.p
  %product = fmul double %value, %factor
  %out.p = getelementptr double, ptr %out, i64 %i
  store double %product, ptr %out.p
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret i64 0
}
"""
)

# the error word of check 3 with the value of the first parameter
REFUSE = f"""
define i64 @refuse(ptr %handles, ptr %params, ptr %context) {{
  %value = load i64, ptr %params
  %high = shl i64 %value, {ERROR_CHECK_BITS}
  %word = or i64 %high, 4
  ret i64 %word
}}
"""

# returns second(first(params[0])), the routines taken from the context
CALLS = f"""
define i64 @calls(ptr %handles, ptr %params, ptr %context) {{
  %x = load i64, ptr %params
  %first.p = getelementptr ptr, ptr %context, i64 {CONTEXT_EXTERNS}
  %first = load ptr, ptr %first.p
  %second.p = getelementptr ptr, ptr %context, i64 {CONTEXT_EXTERNS + 1}
  %second = load ptr, ptr %second.p
  %y = call i64 %first(i64 %x)
  %z = call i64 %second(i64 %y)
  ret i64 %z
}}
"""

ROUTINES = """
define i64 @twice(i64 %x) {
  %y = shl i64 %x, 1
  ret i64 %y
}
define i64 @plus_one(i64 %x) {
  %y = add i64 %x, 1
  ret i64 %y
}
"""

# every chunk adds its number to the sum in array 0
PARALLEL = (
    DATA
    + """
define internal void @chunk(ptr %sum, i64 %chunk, i64 %tid) {
  %old = atomicrmw add ptr %sum, i64 %chunk monotonic
  ret void
}
define i64 @parallel(ptr %handles, ptr %params, ptr %context) {
  %sum = call ptr @data(ptr %handles, i64 0)
  %n = load i64, ptr %params
  %pool = load ptr, ptr %context
  %for.p = getelementptr ptr, ptr %context, i64 1
  %for = load ptr, ptr %for.p
  call void %for(ptr %pool, ptr @chunk, ptr %sum, i64 %n)
  ret i64 0
}
"""
)

LIBM = """
declare double @tgamma(double)
define double @gamma(double %x) {
  %y = call double @tgamma(double %x)
  ret double %y
}
"""


@pytest.fixture(autouse=True, scope="module")
def no_disk_cache():
    with config.scope(cache=False):
        yield


def program(name, text, externs=()):
    kernels = (KernelInfo(name, "test", (("t.py", 1),)), KernelInfo("two", "test", ()))
    return Program(name, host_object(name, text), externs, kernels)


def test_a_program_runs():
    scale = load(program("scale", SCALE), {})
    x = np.linspace(-1, 1, 7)
    out = np.zeros(9)
    assert scale(handles([out, x]), struct.pack("=qd", 7, 2.5)) == 0
    np.testing.assert_array_equal(out[:7], x * 2.5)
    assert (out[7:] == 0).all()
    assert scale.launch_held(handles([out, x]), struct.pack("=qd", 7, -1.0)) == 0
    np.testing.assert_array_equal(out[:7], -x)


def test_handles_follow_views():
    scale = load(program("scale", SCALE), {})
    base = np.arange(10.0)
    high, low = base[5:], base[:5]
    assert scale(handles([high, low]), struct.pack("=qd", 5, 10.0)) == 0
    assert base.tolist() == [0, 1, 2, 3, 4, 0, 10, 20, 30, 40]


@pytest.mark.parametrize("value", [0, 1, -1, 12345, -(1 << 47), (1 << 47) - 1])
def test_error_words_come_back_signed(value):
    refuse = load(program("refuse", REFUSE), {})
    word = refuse(b"", struct.pack("=q", value))
    assert decode_error(word) == (3, value)
    assert decode_error(refuse.launch_held(b"", struct.pack("=q", value))) == (3, value)


def test_externs_arrive_in_the_order_of_the_program():
    at = link_library("routines", host_object("routines", ROUTINES), ("plus_one", "twice"))
    for names, expected in ((("twice", "plus_one"), 21), (("plus_one", "twice"), 22)):
        calls = load(program("calls", CALLS, names), at)
        assert calls(b"", struct.pack("=q", 10)) == expected


def test_missing_externs_are_named():
    with pytest.raises(CompileError, match="not loaded") as caught:
        load(program("calls", CALLS, ("twice", "plus_one")), {"twice": 1})
    assert caught.value.actual == "plus_one"


def test_parallel_for_comes_through_the_context():
    parallel = load(program("parallel", PARALLEL), {})
    total = np.zeros(1, np.int64)
    assert parallel(handles([total]), struct.pack("=q", 1000)) == 0
    assert total[0] == sum(range(1000))


def test_libraries_reach_libm_and_stay():
    at = link_library("gamma", host_object("gamma", LIBM), ("gamma",))
    gc.collect()
    gamma = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(at["gamma"])
    assert gamma(6.5) == pytest.approx(math.gamma(6.5), rel=1e-14)


@pytest.mark.parametrize("code", [b"", b"not an object", b"\x7fELF" + bytes(60)])
def test_bad_object_code_is_refused(code):
    with pytest.raises(CompileError, match="does not link"):
        load(Program("nothing", code, (), ()), {})


def test_a_missing_entry_is_refused():
    with pytest.raises(CompileError, match="does not link"):
        load(Program("other", host_object("scale", SCALE), (), ()), {})


def test_unresolved_symbols_are_refused(capfd):
    text = "declare i64 @no_such_routine(ptr, ptr, ptr)\n" + CALLS.replace(
        "%z = call i64 %second(i64 %y)",
        "%z = call i64 @no_such_routine(ptr null, ptr null, ptr null)",
    )
    with pytest.raises(CompileError, match="does not link"):
        load(program("calls", text), {})
    assert "no_such_routine" in capfd.readouterr().err


def test_equal_names_do_not_meet():
    first = load(program("refuse", REFUSE), {})
    second = load(program("refuse", REFUSE.replace("or i64 %high, 4", "or i64 %high, 9")), {})
    params = struct.pack("=q", 5)
    assert decode_error(first(b"", params)) == (3, 5)
    assert decode_error(second(b"", params)) == (8, 5)
    del first
    gc.collect()
    assert decode_error(second(b"", params)) == (8, 5)


def test_code_is_freed_with_the_program():
    loaded = load(program("refuse", REFUSE), {})
    library = weakref.ref(loaded._library)
    gc.collect()
    assert library() is not None
    del loaded
    gc.collect()
    assert library() is None


def test_launches_are_counted():
    refuse = load(program("refuse", REFUSE), {})
    before = counters.snapshot()
    for _ in range(3):
        refuse(b"", bytes(8))
    refuse.launch_held(b"", bytes(8))
    grown = counters.since(before)
    assert (grown.launches, grown.kernels, grown.compiled) == (4, 8, 0)


def test_loading_and_running_in_several_threads():
    code = program("scale", SCALE)
    failures = []

    def work(seed):
        for i in range(15):
            loaded = load(code, {})
            out, x = np.zeros(100), np.arange(100.0)
            loaded(handles([out, x]), struct.pack("=qd", 100, seed + i))
            if not (out == x * (seed + i)).all():
                failures.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


def test_the_layout_check_holds_here_and_notices_others(monkeypatch):
    assert handle_offset_ok()
    monkeypatch.setattr(cpu, "HANDLE_DATA_OFFSET", 24)  # the dimensions' word
    handle_offset_ok.cache_clear()
    assert not handle_offset_ok()
    monkeypatch.undo()
    handle_offset_ok.cache_clear()


def test_records_stand_in_for_arrays_with_another_layout(monkeypatch):
    monkeypatch.setattr(cpu, "handle_offset_ok", lambda: False)
    scale = load(program("scale", SCALE), {})
    out, x = np.zeros(5), np.arange(5.0)
    packed = handles([out, x])
    assert len(packed) == 16
    assert struct.unpack("=2q", packed) != (id(out), id(x))
    gc.collect()
    assert scale(packed, struct.pack("=qd", 5, 3.0)) == 0
    assert out.tolist() == [0, 3, 6, 9, 12]


def test_handles_are_object_addresses():
    arrays = [np.zeros(2), np.ones(3)]
    assert handles(arrays) == struct.pack("=2q", *map(id, arrays))
    assert handles([]) == b""


def test_host_target():
    target = host_target()
    assert target is host_target()
    assert target.triple
    assert target.cpu
    assert target.vector_bits in (128, 256, 512)
    assert target.key == "|".join(
        [target.triple, target.cpu, target.features, f"{target.vector_bits}x{target.registers}"]
    )


@pytest.mark.parametrize(
    ("features", "size"),
    [
        ("+sse2,+avx,+avx2,+avx512f,+avx512vl", (512, 32)),
        ("+sse2,+avx,+avx2,-avx512vl", (256, 16)),
        ("+sse2,-avx2", (128, 16)),
        ("+neon,+fp-armv8", (128, 32)),
        ("", (128, 16)),
    ],
)
def test_vector_sizes(features, size):
    target = target_of("t", "c", features)
    assert (target.vector_bits, target.registers) == size


def test_llvm_is_not_loaded_by_an_import(tmp_path):
    code = "import sys, dualgrad.runtime.cpu; sys.exit('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert linker.host_target().cpu
