"""Calls of functions of the array API standard that NumPy answers as the standard says.

CASES and LINALG: the call, and the dtypes of its tensors x [3, 4], v [5], z [], m [2, 3, 3] (in
LINALG without NaN and infinities); i [3] are integers, b [3, 4] bools.
"""

FLOATS = "float32 float64"
INTEGERS = "int8 int32 int64 uint8 uint64"
NUMBERS = f"{FLOATS} {INTEGERS}"
ALL = f"{NUMBERS} bool"

CASES: dict[str, str] = {
    # creation
    **dict.fromkeys(
        [
            "xp.asarray(x)", "xp.asarray(x, copy=True)", "xp.asarray(x, dtype=xp.float64)",
            "xp.empty_like(x).shape", "xp.full_like(x, 1)", "xp.ones_like(x)", "xp.zeros_like(x)",
            "xp.ones_like(x, dtype=xp.int8)", "xp.tril(x)", "xp.triu(m, k=1)",
            "xp.tril(m, k=-1)", "xp.meshgrid(v, x[0])", "xp.meshgrid(v, x[0], indexing='ij')",
        ],
        ALL,
    ),
    **dict.fromkeys(
        [
            "xp.arange(5, dtype=xp.int64)", "xp.arange(1, 5, 2, dtype=xp.float64)",
            "xp.arange(5, 1, -1)", "xp.arange(0.0, 1.0, 0.25, dtype=xp.float32)",
            "xp.eye(3, dtype=xp.float32)", "xp.eye(3, 4, k=-1, dtype=xp.int8)",
            "xp.full((2, 3), 7)", "xp.full(3, True)", "xp.full(shape=(), fill_value=2)",
            "xp.full((2,), 1.5, dtype=xp.float64)", "xp.ones(shape=(2, 3), dtype=xp.float64)",
            "xp.ones(3, dtype=xp.bool)", "xp.zeros((), dtype=xp.int16)",
            "xp.zeros((0, 3), dtype=xp.float32)", "xp.empty((2, 0), dtype=xp.float32)",
            "xp.linspace(0, 1, num=5, dtype=xp.float64)",
            "xp.linspace(0.0, 1.0, 4, endpoint=False, dtype=xp.float64)",
            "xp.linspace(2, 2, 0, dtype=xp.float32)", "xp.asarray([[1, 2], [3, 4]])",
            "xp.asarray([True, False])", "xp.asarray(3)", "xp.asarray([1.5], dtype=xp.float64)",
            "xp.broadcast_shapes((2, 1), (3,))",
        ],
        "float64",
    ),
    # dtypes
    **dict.fromkeys(
        [
            "xp.astype(x, xp.int64, copy=True)", "xp.astype(b, xp.float32)",
            "xp.astype(x, xp.bool)", "xp.result_type(x, x)",
            "xp.isdtype(x.dtype, 'real floating')", "xp.isdtype(x.dtype, ('integral', 'bool'))",
            "xp.isdtype(x.dtype, 'signed integer')", "xp.isdtype(x.dtype, 'numeric')",
            "xp.isdtype(x.dtype, 'unsigned integer')", "xp.isdtype(x.dtype, xp.int8)",
            "xp.isdtype(x.dtype, 'complex floating')",
        ],
        "int8 uint16 int64 bool",
    ),
    "xp.result_type(xp.int8, xp.uint8)": "float64",
    "xp.result_type(xp.float32, xp.float64)": "float64",
    "xp.can_cast(xp.int8, xp.int16)": "float64",
    "xp.can_cast(x, xp.float32)": "float64",
    "(xp.finfo(x.dtype).bits, float(xp.finfo(x.dtype).eps), float(xp.finfo(x.dtype).max))": FLOATS,
    "(float(xp.finfo(x.dtype).min), float(xp.finfo(x.dtype).smallest_normal))": FLOATS,
    "(xp.iinfo(x.dtype).bits, xp.iinfo(x.dtype).min, xp.iinfo(x.dtype).max)": INTEGERS,
    # manipulation
    **dict.fromkeys(
        [
            "xp.broadcast_arrays(x, v[:4])", "xp.broadcast_to(x, (2, 3, 4))",
            "xp.broadcast_to(z, shape=(2,))", "xp.concat([x, x], axis=1)",
            "xp.concat((x, v), axis=None)", "xp.concat([v])", "xp.expand_dims(x, axis=1)",
            "xp.expand_dims(x, axis=-1)", "xp.expand_dims(x, axis=(0, 2))", "xp.flip(x)",
            "xp.flip(x, axis=-1)", "xp.flip(m, axis=(0, 2))", "xp.moveaxis(m, 0, -1)",
            "xp.moveaxis(m, (0, 1), (2, 0))", "xp.permute_dims(m, (2, 0, 1))",
            "xp.permute_dims(x, axes=(1, 0))", "xp.repeat(x, 2)", "xp.repeat(x, 3, axis=1)",
            "xp.repeat(x, i, axis=0)", "xp.reshape(x, (4, 3))", "xp.reshape(x, (-1,), copy=True)",
            "xp.reshape(x, shape=(2, 6), copy=False)", "xp.roll(x, 1)",
            "xp.roll(x, shift=(1, -2), axis=(0, 1))", "xp.roll(x, 1, axis=1)",
            "xp.squeeze(x[None, :, None], axis=(0, 2))", "xp.squeeze(x[None], axis=0)",
            "xp.stack([x, x])", "xp.stack((x, x), axis=-1)", "xp.tile(x, (2, 1))",
            "xp.tile(x, (2,))", "xp.tile(x, (2, 1, 3))", "xp.unstack(x)", "xp.unstack(x, axis=1)",
            "xp.matrix_transpose(m)", "x.T", "m.mT",
        ],
        ALL,
    ),
    # searching, sorting, sets, indexing
    **dict.fromkeys(
        [
            "xp.argmax(x)", "xp.argmax(x, axis=1)", "xp.argmin(x, axis=0, keepdims=True)",
            "xp.argmax(x, keepdims=True)",
        ],
        INTEGERS,
    ),
    **dict.fromkeys(
        [
            "xp.count_nonzero(x)", "xp.count_nonzero(m, axis=(0, 1), keepdims=True)",
            "xp.nonzero(x)", "xp.where(b, x, x[::-1])", "xp.where(b, x, 1)", "xp.where(b, 0, x)",
            "xp.take(x, i, axis=1)", "xp.take(v, i)", "xp.take(x, i, axis=0)",
            "xp.take_along_axis(x, i[:, None])", "xp.take_along_axis(x, i[None, :1], axis=0)",
            "x[b]", "x[1]", "x[..., 0]", "x[None]", "x[::-1]", "x[1:, ::2]", "x[i]", "x[i, i]",
            "x[-1, 2:0:-1]", "x[2:2]", "z[()]", "z[None, ...]", "m[:, i, 1]",
        ],
        ALL,
    ),
    **dict.fromkeys(
        [
            "xp.sort(v)", "xp.sort(x, axis=0)", "xp.argsort(x, axis=0)",
            "xp.argsort(v, stable=True)", "xp.sort(xp.unique_values(x))", "xp.unique_all(x)",
            "xp.unique_counts(x)", "xp.unique_inverse(x)",
            "xp.searchsorted(xp.sort(v), x)", "xp.searchsorted(xp.sort(v), x, side='right')",
            "xp.searchsorted(v, x, sorter=xp.argsort(v))", "xp.isin(x, v)",
            "xp.isin(x, v, invert=True)", "xp.isin(x, 2)",
        ],
        INTEGERS,
    ),
    # statistics
    **dict.fromkeys(
        [
            "xp.max(x)", "xp.max(x, axis=0)", "xp.min(m, axis=(0, 2), keepdims=True)",
            "xp.sum(x)", "xp.sum(x, axis=-1)", "xp.prod(x, axis=0)",
            "xp.sum(m, axis=(0, 1), keepdims=True)", "xp.cumulative_sum(v)",
            "xp.cumulative_sum(x, axis=1, include_initial=True)", "xp.cumulative_prod(v)",
            "xp.diff(x)", "xp.diff(x, axis=0, n=2)", "xp.diff(v, prepend=v[:2], append=v[:1])",
            "xp.sum(x[:, :0], axis=1)", "xp.prod(x[:0], axis=0)", "xp.clip(x, 1, 3)",
            "xp.clip(x, min=2)", "xp.clip(x, max=x[0])", "xp.clip(x)",
        ],
        NUMBERS,
    ),
    "xp.sum(x, dtype=xp.float64)": INTEGERS,
    "xp.sum(x, axis=())": INTEGERS,
    "xp.prod(x, dtype=xp.int64, axis=1)": "int8 int32 uint8",
    **dict.fromkeys(
        [
            "xp.all(x)", "xp.all(x, axis=1)", "xp.any(x, axis=(0, 1), keepdims=True)",
            "xp.any(x[:0], axis=0)", "xp.all(x[:0])",
        ],
        ALL,
    ),
}  # fmt: skip

LINALG: dict[str, str] = dict.fromkeys(
    [
        "xp.mean(x)", "xp.mean(x, axis=(0, 1), keepdims=True)", "xp.std(x)",
        "xp.std(x, axis=0, correction=1)", "xp.var(x, axis=1, correction=1.5, keepdims=True)",
        "xp.var(x)", "xp.matmul(x, x.T)", "xp.matmul(v, v)", "xp.matmul(m, m)", "x @ x.T",
        "xp.tensordot(x, x, axes=2)", "xp.tensordot(x, x, axes=((0,), (0,)))", "xp.vecdot(x, x)",
        "xp.vecdot(x, x, axis=0)", "xp.linalg.cholesky(m @ m.mT + xp.eye(3, dtype=m.dtype))",
        "xp.linalg.cross(x[:, :3], x[:, 1:])", "xp.linalg.cross(x, x[::-1], axis=0)",
        "xp.linalg.det(m)", "xp.linalg.diagonal(m, offset=1)", "xp.linalg.diagonal(m)",
        "xp.linalg.eigh(m + m.mT).eigenvalues", "abs(xp.linalg.eigh(m + m.mT).eigenvectors)",
        "xp.linalg.eigvalsh(m + m.mT)", "xp.linalg.inv(m)", "xp.linalg.matmul(m, m)",
        "xp.linalg.matrix_norm(m)", "xp.linalg.matrix_norm(m, keepdims=True, ord='nuc')",
        "xp.linalg.matrix_norm(m, ord=1)", "xp.linalg.matrix_norm(m, ord=-2)",
        "xp.linalg.matrix_power(m, 3)", "xp.linalg.matrix_power(m, -1)",
        "xp.linalg.matrix_power(m, 0)", "xp.linalg.matrix_rank(m)",
        "xp.linalg.matrix_rank(m, rtol=0.5)", "xp.linalg.outer(v, x[0])", "xp.linalg.pinv(x)",
        "xp.linalg.pinv(x, rtol=0.5)", "abs(xp.linalg.qr(x).Q)", "abs(xp.linalg.qr(x).R)",
        "abs(xp.linalg.qr(x.T, mode='complete').R)", "xp.linalg.slogdet(m).sign",
        "xp.linalg.slogdet(m).logabsdet", "xp.linalg.solve(m, m[:, :, :2])",
        "xp.linalg.svd(x).S", "abs(xp.linalg.svd(x, full_matrices=False).U)",
        "abs(xp.linalg.svd(x, full_matrices=False).Vh)", "xp.linalg.svdvals(x)",
        "xp.linalg.trace(m)", "xp.linalg.trace(m, offset=-1)", "xp.linalg.vecdot(x, x)",
        "xp.linalg.vector_norm(x)", "xp.linalg.vector_norm(x, axis=0, ord=1)",
        "xp.linalg.vector_norm(m, axis=(0, 2), keepdims=True, ord=3)",
        "xp.linalg.vector_norm(x, ord=xp.inf)", "xp.linalg.vector_norm(x, ord=-xp.inf, axis=1)",
    ],
    FLOATS,
)  # fmt: skip
