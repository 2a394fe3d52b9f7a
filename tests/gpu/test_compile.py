"""Every golden program's kernels compile for three generations of GPUs, without a GPU.

resources.txt has a row for each kernel: ceilings of its registers on each architecture, and the
widest load and store of global memory in bytes.  More registers mean fewer threads at a time;
16 bytes at once are what it takes to use the memory's whole bandwidth.  After a change of the
compiler that is meant to alter them, `pytest tests/gpu/test_compile.py --update-golden` rewrites
the table; the difference then shows what the change costs.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from test_golden import SETUPS

from dualgrad.runtime.nvrtc import Image
from gpu.compiling import (
    Accesses,
    accesses_in_ptx,
    accesses_in_sass,
    nvrtc_or_skip,
    sass_of,
    text_of,
)
from gpu.programs import programs, sample_programs

TABLE = Path(__file__).parent / "resources.txt"
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
HEAD = f"{'kernel':40}" + "".join(f"{a:>7}" for a in ARCHITECTURES) + "   load  store"
CALL = 16  # bytes that a call of the compiler's own functions may save: 64-bit division is one
ROOM = 4  # registers that another version of the compiler may need in addition


@functools.cache
def image(arch: str) -> Image:
    return nvrtc_or_skip().compile(text_of(programs()), arch)


def read_table() -> dict[str, tuple[int, ...]]:
    head, *lines = TABLE.read_text(encoding="utf-8").splitlines()
    assert head == HEAD
    rows = (line.split() for line in lines)
    return {name: tuple(map(int, numbers)) for name, *numbers in rows}


def write_table() -> None:
    accesses = accesses_in_ptx(image(ARCHITECTURES[-1]).ptx)
    lines = [HEAD]
    for name in sorted(accesses):
        needed = [image(arch).usage()[name].registers for arch in ARCHITECTURES]
        ceilings = [-(-(n + ROOM) // 8) * 8 for n in needed]
        load, store = accesses[name]
        lines.append(f"{name:40}" + "".join(f"{c:7}" for c in ceilings) + f"{load:7}{store:7}")
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> dict[str, tuple[int, ...]]:
    nvrtc_or_skip()
    if request.config.getoption("--update-golden"):
        write_table()
    return read_table()


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_spills(arch: str) -> None:
    usage = image(arch).usage()
    assert usage
    spilt = {k: u for k, u in usage.items() if u.spill_stores or u.spill_loads or u.stack}
    assert not spilt


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_registers(arch: str, table: dict[str, tuple[int, ...]]) -> None:
    column = ARCHITECTURES.index(arch)
    usage = image(arch).usage()
    assert usage.keys() == table.keys()
    over = {k: u.registers for k, u in usage.items() if u.registers > table[k][column]}
    assert not over


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_shared_memory_is_within_what_every_device_has(arch: str) -> None:
    assert max(u.shared for u in image(arch).usage().values()) <= 48 << 10


def promised(table: dict[str, tuple[int, ...]]) -> dict[str, Accesses]:
    return {name: (row[-2], row[-1]) for name, row in table.items()}


def test_widths_of_accesses(table: dict[str, tuple[int, ...]]) -> None:
    assert accesses_in_ptx(image("sm_80").ptx) == promised(table)


def test_the_device_gets_these_accesses(table: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    """The assembler could take wide accesses apart."""
    assert accesses_in_sass(sass_of(image("sm_80"), tmp_path)) == promised(table)


def test_some_kernels_have_full_accesses(table: dict[str, tuple[int, ...]]) -> None:
    for name in ("long_chain_0", "double_chain_0", "half_chain_0", "adam_step_1", "sgd_step_0"):
        assert promised(table)[f"k_{name}"] == (16, 16), name


def test_texts_with_wide_indices_compile() -> None:
    text = text_of(programs()[: len(SETUPS)], wide=True)
    usage = nvrtc_or_skip().compile(text, "sm_80").usage()
    spilt = {k: u for k, u in usage.items() if u.spill_stores or u.spill_loads}
    assert not spilt


def check_samples(first: int, step: int, arch: str) -> None:
    """The kernels of so many samples compile, and spill nothing but what calls save."""
    usage = nvrtc_or_skip().compile(text_of(sample_programs(first, step)), arch).usage()
    assert usage
    assert not {k: u for k, u in usage.items() if max(u.spill_stores, u.spill_loads) > CALL}


def test_some_samples_of_ops() -> None:
    check_samples(0, 90, "sm_80")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("first", range(20))
def test_all_samples_of_ops(first: int, arch: str) -> None:
    check_samples(first, 20, arch)


def test_reading_of_accesses() -> None:
    ptx = """
.visible .entry first(
\t.param .u64 first_param_0
{
\tld.param.u64 \t%rd1, [first_param_0];
\tld.global.nc.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd4];
\t@%p1 st.global.f64 \t[%rd4], %fd9;
\tld.shared.v4.f32 \t{%f1, %f2, %f3, %f4}, [%r4];
}
.visible .entry second(
\tld.volatile.global.u64 \t%rd1, [%rd2];
\tst.global.v2.u16 \t[%rd4], {%rs1, %rs2};
"""
    assert accesses_in_ptx(ptx) == {"first": (16, 8), "second": (8, 4)}
    sass = """
\t.section\t.text.first,"ax",@progbits
        /*0010*/  LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/  @!P0 STG.E.64.SYS [R2], R4 ;
        /*0030*/  LDS.128 R4, [R2] ;
\t.section\t.text.second,"ax",@progbits
        /*0010*/  LDG.E.U8 R4, [R2.64] ;
        /*0020*/  STG.E [R2.64], R4 ;
"""
    assert accesses_in_sass(sass) == {"first": (16, 8), "second": (1, 4)}
