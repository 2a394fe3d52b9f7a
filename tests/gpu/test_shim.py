"""The shim runs CUDA C as a GPU does, and refuses what a GPU need not survive."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from gpu import known_kernels, shim

if (reason := shim.available()) is not None:
    pytest.skip(reason, allow_module_level=True)

Argument = np.ndarray | int | float
SEEDS = range(6)


def pack(*arguments: Argument) -> bytes:
    """8 bytes per argument: an array's address, an integer, a double."""
    slots = []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            slots.append(struct.pack("<Q", argument.ctypes.data))
        else:
            slots.append(struct.pack("<d" if isinstance(argument, float) else "<q", argument))
    return b"".join(slots)


def run(text: str, blocks: int, threads: int, *arguments: Argument, seed: int = 0) -> None:
    """Launches the only kernel of a text."""
    library = shim.build(text)
    (name,) = library.kernels
    library.launch(name, blocks, threads, pack(*arguments), seed=seed)


def kernel(body: str, parameters: str = "int* y") -> str:
    """A kernel `probe`, whose body starts on line 2."""
    return f'extern "C" __global__ void probe({parameters}) {{\n{body}\n}}\n'


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3, 4, 1000, 4099])
@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (3, 64), (2, 256)])
def test_an_elementwise_kernel(n: int, blocks: int, threads: int) -> None:
    x = np.arange(n, dtype="f4") / 3
    y = np.zeros(n, "f4")
    run(known_kernels.SCALE, blocks, threads, x, y, n, 1.7)
    assert np.array_equal(y, x * np.float32(1.7))


@pytest.mark.parametrize("threads", [32, 96, 1024])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_reduction_of_a_block(threads: int, seed: int) -> None:
    x = np.arange(1500, dtype="f4")
    y = np.zeros_like(x)
    run(known_kernels.TOTAL, 2, threads, x, y, x.size, seed=seed)
    assert np.all(y == 1500 * 1499 / 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tiled_matmul(rng: np.random.Generator, seed: int) -> None:
    a, b = rng.standard_normal((20, 37), "f4"), rng.standard_normal((37, 33), "f4")
    c = np.zeros((20, 33), "f4")
    run(known_kernels.MATMUL, 6, 256, a, b, c, 20, 33, 37, seed=seed)
    expected = np.zeros_like(c)
    for k in range(37):
        expected += a[:, k : k + 1] * b[k]
    assert np.array_equal(c, expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_teams_within_a_warp(rng: np.random.Generator, seed: int) -> None:
    """9 rows for 4 teams: they end at different times."""
    x = rng.integers(0, 100, (9, 50)).astype("f8")
    y = np.zeros(9)
    run(known_kernels.TEAMS, 1, 32, x, y, 9, 50, seed=seed)
    assert np.array_equal(y, x.sum(1))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_barrier_of_a_warp(seed: int) -> None:
    x = np.arange(512, dtype="i4")
    y = np.zeros_like(x)
    run(known_kernels.REVERSE, 2, 256, x, y, seed=seed)
    assert np.array_equal(y, x.reshape(-1, 32)[:, ::-1].ravel())


def test_atomics() -> None:
    words = np.array([2**64 - 1, 0, 0], "u8")
    run(known_kernels.ATOMICS, 3, 64, words, 1000)
    assert words.tolist() == [1, 1000, np.bitwise_xor.reduce(np.arange(1000))]


def test_philox_gives_the_known_answers() -> None:
    """The vectors for philox4x32-10 of Random123 1.14 (tests/kat_vectors)."""
    vectors = """
        00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
        ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
        243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
    """
    table = np.array([int(word, 16) for word in vectors.split()], "u4").reshape(3, 10)
    given = np.ascontiguousarray(table[:, :6])
    out = np.zeros((3, 4), "u4")
    run(known_kernels.PHILOX, 1, 32, given, out, 3)
    assert np.array_equal(out, table[:, 6:])


def test_shuffles_follow_ptx() -> None:
    text = kernel(
        "int v = threadIdx.x, t = threadIdx.x;\n"
        "y[t] = __shfl_sync(~0u, v, 5);\n"
        "y[32 + t] = __shfl_sync(~0u, v, 9, 8);\n"
        "y[64 + t] = __shfl_up_sync(~0u, v, 3);\n"
        "y[96 + t] = __shfl_down_sync(~0u, v, 3, 16);\n"
        "y[128 + t] = __shfl_xor_sync(~0u, v, 9, 8);"
    )
    y = np.zeros((5, 32), "i4")
    run(text, 1, 32, y)
    lane = np.arange(32)
    assert np.array_equal(y[0], np.full(32, 5))
    assert np.array_equal(y[1], lane // 8 * 8 + 1)
    assert np.array_equal(y[2], np.where(lane < 3, lane, lane - 3))
    assert np.array_equal(y[3], np.where(lane % 16 + 3 >= 16, lane, lane + 3))
    # An earlier segment may be read, a later one not.
    assert np.array_equal(y[4], np.where((lane ^ 9) >= lane // 8 * 8 + 8, lane, lane ^ 9))


def test_numbers_are_those_of_ieee() -> None:
    text = kernel(
        "y[0] = fmaf(x[0], x[0], -1.0f);\ny[1] = x[0] * x[0] - 1.0f;\ny[2] = sqrtf(x[1]);\n"
        "y[3] = x[2] / x[1];\ny[4] = rintf(2.5f);\ny[5] = __int_as_float(0x7fc00000);",
        "const float* x, float* y",
    )
    x = np.array([1 + 2**-12, 2, 1e-38], "f4")
    y = np.zeros(6, "f4")
    run(text, 1, 1, x, y)
    assert y[0] == np.float32(2.0**-11 + 2.0**-24)
    assert y[1] == x[0] * x[0] - np.float32(1) != y[0]
    assert y[2] == np.sqrt(x[1])
    assert y[3] == x[2] / x[1] != 0
    assert y[4] == 2
    assert np.isnan(y[5])


# ---- order ---------------------------------------------------------------------------------------

ORDER = kernel("y[1 + y[0]++] = blockIdx.x * blockDim.x + threadIdx.x;")


def _order(blocks: int, threads: int, seed: int) -> np.ndarray:
    y = np.zeros(1 + blocks * threads, "i4")
    run(ORDER, blocks, threads, y, seed=seed)
    assert sorted(y[1:]) == list(range(blocks * threads))
    return y[1:]


def test_the_seed_decides_the_order_of_threads() -> None:
    assert np.array_equal(_order(1, 64, 3), _order(1, 64, 3))
    assert not np.array_equal(_order(1, 64, 3), _order(1, 64, 4))
    assert not np.array_equal(_order(1, 64, 3), np.arange(64))


def test_the_seed_decides_the_order_of_blocks() -> None:
    orders = [tuple(_order(10, 1, seed)) for seed in range(12)]
    assert tuple(range(10)) in orders
    assert tuple(reversed(range(10))) in orders
    assert len(set(orders)) > 3


@pytest.mark.parametrize(
    ("text", "call", "arguments"),
    [
        (known_kernels.TOTAL, "__syncthreads();", (1, 256, (500,), (500,))),
        (known_kernels.MATMUL, "__syncthreads();", (1, 256, (16, 40), (40, 16))),
        (known_kernels.REVERSE, "__syncwarp();", (1, 256, (256,), (256,))),
    ],
    ids=["total", "matmul", "reverse"],
)
def test_every_barrier_is_needed(
    rng: np.random.Generator,
    text: str,
    call: str,
    arguments: tuple[int, int, tuple[int, ...], tuple[int, ...]],
) -> None:
    """Without any one of its barriers a kernel gives other results for some seed."""
    blocks, threads, left, right = arguments
    kind = "i4" if "int* x" in text else "f4"
    a, b = rng.integers(1, 9, left).astype(kind), rng.integers(1, 9, right).astype(kind)

    def results(text: str, seed: int) -> bytes:
        y = np.zeros((16, 16) if "matmul" in text else left, kind)
        if "matmul" in text:
            run(text, blocks, threads, a, b, y, 16, 16, 40, seed=seed)
        else:
            run(
                text, blocks, threads, a, y, *([a.size] if "long long n" in text else []), seed=seed
            )
        return y.tobytes()

    expected = results(text, 0)
    assert all(results(text, seed) == expected for seed in range(20))
    parts = text.split(call)
    assert len(parts) > 1
    for removed in range(1, len(parts)):
        broken = call.join(parts[:removed]) + ";" + call.join(parts[removed:])
        assert any(results(broken, seed) != expected for seed in range(20)), f"barrier {removed}"


# ---- memory --------------------------------------------------------------------------------------


def test_shared_memory_starts_as_nan_in_every_block() -> None:
    text = kernel(
        "__shared__ float kept[4];\ny[blockIdx.x * 4 + threadIdx.x] = kept[threadIdx.x];\n"
        "kept[threadIdx.x] = 1.0f;",
        "float* y",
    )
    y = np.zeros(12, "f4")
    run(text, 3, 4, y)
    assert np.isnan(y).all()


def test_shared_memory_of_functions_starts_as_nan() -> None:
    text = (
        "__device__ float look() { __shared__ float kept; float v = kept; kept = 1; return v; }\n"
    )
    y = np.zeros(3, "f4")
    run(text + kernel("y[blockIdx.x] = look();", "float* y"), 3, 1, y)
    assert np.isnan(y).all()


def test_variables_without_a_value_show() -> None:
    y = np.zeros(4, "i4")
    run(kernel("int v[4];\nv[blockIdx.x] = 1;\ny[threadIdx.x] = v[threadIdx.x];"), 1, 4, y)
    assert y.tolist() == [1, *[-0x1010102] * 3]


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "if (threadIdx.x < 5)\n__syncthreads();\nelse\n__syncthreads();",
            shim.DivergentBarrier,
            r"probe, line (3|5), block 0, thread \d+: __syncthreads\(\) at line \1, while other "
            r"threads of the block wait at the one of line",
        ),
        (
            "if (threadIdx.x < 5) __syncthreads();\n__syncwarp();",
            shim.Deadlock,
            r"line 2.*: 32 threads wait.*; 5 at line 2 \(__syncthreads\); 27 at line 3 \(__syncw",
        ),
        (
            "if (threadIdx.x % 32 < 5) __syncwarp(0xff);\n__syncthreads();",
            shim.Deadlock,
            r"; 54 at line 3 \(__syncthreads\); 5 at line 2 \(__syncwarp\); 5 at line 2",
        ),
        (
            "y[0] = __shfl_xor_sync(0xffffu, 1, 1);",
            shim.MaskError,
            r"line 2.* __shfl_xor_sync with mask 0xffff, which does not name the calling lane \d+",
        ),
        (
            "int l = threadIdx.x % 32;\n__syncwarp(l < 8 ? 0xffu : 0xffffffffu);",
            shim.MaskError,
            r"line 3.* __syncwarp with mask .*, while ",
        ),
        (
            "if (threadIdx.x % 2)\n__syncwarp();\nelse\n__syncwarp();",
            shim.MaskError,
            r"line [35].*while other lanes wait at line [35] \(__syncwarp\) with mask 0xffffffff",
        ),
        (
            "if (threadIdx.x % 32 < 16)\ny[0] = __shfl_down_sync(0xffffu, 1, 8);",
            shim.LaneError,
            r"line 3.*__shfl_down_sync reads lane (16|\d\d), which is not among the lanes 0xffff",
        ),
        (
            "if (threadIdx.x % 32 == 7) return;\ny[0] = __shfl_sync(0xffffffffu, 1, 7);",
            shim.LaneError,
            r"line 3.*__shfl_sync reads lane 7, which is not among the lanes 0xffffff7f",
        ),
        ("y[0] = __shfl_sync(~0u, 1, 7, 12);", shim.LaneError, "line 2.* with width 12"),
        ("*(int*)64 = 1;", shim.MemoryFault, r"probe, block 0, thread \d+: .*\(0x40\)"),
        ("y[0] = threadIdx.x / y[0];", shim.MemoryFault, "division by zero"),
    ],
)
def test_what_a_gpu_need_not_survive(body: str, error: type[Exception], message: str) -> None:
    y = np.zeros(64, "i4")
    text = kernel(body)
    for seed in range(3):
        with pytest.raises(error, match=message):
            run(text, 1, 64, y, seed=seed)
    run(ORDER, 1, 8, y)  # the next launch finds nothing of the failed one


def test_a_lane_that_the_block_does_not_have() -> None:
    with pytest.raises(shim.LaneError, match=r"among the lanes 0xffff that"):
        run(kernel("y[0] = __shfl_down_sync(0xffffffffu, 1, 8);"), 1, 48, np.zeros(1, "i4"))


def test_threads_may_end_before_the_others_meet() -> None:
    text = kernel(
        "__shared__ int kept[64];\nif (threadIdx.x >= 20) return;\n"
        "kept[threadIdx.x] = threadIdx.x;\n"
        "__syncthreads();\ny[threadIdx.x] = kept[19 - threadIdx.x] + __shfl_sync(~0u, 0, 3);"
    )
    for seed in SEEDS:
        y = np.zeros(20, "i4")
        run(text, 1, 64, y, seed=seed)
        assert y.tolist() == list(range(20))[::-1]


@pytest.mark.parametrize(
    ("blocks", "threads", "message"),
    [(1, 1025, "1025 threads"), (1, 0, "0 threads a block, not 1 to 1024"), (0, 32, "0 blocks")],
)
def test_limits_of_a_launch(blocks: int, threads: int, message: str) -> None:
    with pytest.raises(shim.LaunchError, match=message):
        run(ORDER, blocks, threads, np.zeros(1, "i4"))


def test_launch_bounds() -> None:
    text = 'extern "C" __global__ __launch_bounds__(64, 2) void probe(int* y) { y[0] = 1; }'
    run(text, 1, 64, np.zeros(1, "i4"))
    with pytest.raises(shim.LaunchError, match="65 threads a block, not 1 to 64"):
        run(text, 1, 65, np.zeros(1, "i4"))


def test_shared_memory_has_a_limit() -> None:
    body = "__shared__ volatile int kept[{}];\nkept[threadIdx.x] = 1;\ny[0] = kept[0];"
    y = np.zeros(1, "i4")
    run(kernel(body.format(12 * 1024)), 1, 1, y)
    with pytest.raises(
        shim.LaunchError, match="49156 bytes of __shared__ variables, not 0 to 49152"
    ):
        run(kernel(body.format(12 * 1024 + 1)), 1, 1, y)


def test_kernels_have_their_own_shared_memory() -> None:
    body = "__shared__ volatile char kept[40000];\nkept[0] = 1;\ny[0] = kept[0];"
    text = kernel(body).replace("probe", "one") + kernel(body).replace("probe", "two")
    shim.build(text).launch("two", 1, 1, pack(np.zeros(1, "i4")))


def test_arguments_are_counted() -> None:
    library = shim.build(known_kernels.SCALE)
    with pytest.raises(shim.LaunchError, match="scale: 24 bytes of arguments, not 32"):
        library.launch("scale", 1, 32, bytes(24))
    with pytest.raises(shim.LaunchError, match="no kernel 'skale', only scale"):
        library.launch("skale", 1, 32, bytes(32))


# ---- building ------------------------------------------------------------------------------------


def test_the_compiler_names_the_line() -> None:
    with pytest.raises(shim.BuildError, match=r"kernels.cu:3:\d+: error: .*unknown"):
        shim.build(kernel("\ny[0] = unknown;"))
    with pytest.raises(shim.BuildError, match="every parameter of a kernel takes 8 bytes"):
        shim.build(kernel("y[0] = n;", "int* y, int n"))
    with pytest.raises(shim.BuildError, match='no extern "C" __global__ function'):
        shim.build("__global__ void probe(int* y) {}")


def test_kernels_know_their_parameters() -> None:
    text = kernel(
        "", "const float* __restrict__ p0, double* p1, long long n, double s, unsigned long long* e"
    )
    (found,) = shim.build(text).kernels.values()
    assert [(p.name, p.kind, p.size) for p in found.parameters] == [
        ("p0", "p", 4),
        ("p1", "p", 8),
        ("n", "i", 8),
        ("s", "d", 8),
        ("e", "p", 8),
    ]


def test_a_text_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = shim.build(known_kernels.SCALE)
    monkeypatch.setattr(shim, "_run_compiler", None)
    assert shim.build(known_kernels.SCALE).image == first.image


def test_an_image_is_all_that_is_needed() -> None:
    y = np.zeros(3, "i4")
    shim.Library.from_image(shim.build(ORDER).image).launch("probe", 1, 2, pack(y))
    assert y[0] == 2
