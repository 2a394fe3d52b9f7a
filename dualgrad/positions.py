"""Functions of `dualgrad` that read, write, search and select by position."""

from dualgrad.compiler.ops.counting import (
    bincount,
    histc,
    histogram,
)
from dualgrad.compiler.ops.gather import (
    gather,
    index_select,
    take,
    take_along_axis,
)
from dualgrad.compiler.ops.index import one_hot
from dualgrad.compiler.ops.masked import masked_fill, masked_scatter
from dualgrad.compiler.ops.scatter import (
    index_add,
    index_copy,
    index_fill,
    put_along_axis,
    scatter,
    scatter_add,
    scatter_reduce,
)
from dualgrad.compiler.ops.search import (
    bucketize,
    isin,
    searchsorted,
)
from dualgrad.selection import (
    argwhere,
    flatnonzero,
    masked_select,
    nonzero,
    unique,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)

__all__ = [
    "argwhere",
    "bincount",
    "bucketize",
    "flatnonzero",
    "gather",
    "histc",
    "histogram",
    "index_add",
    "index_copy",
    "index_fill",
    "index_select",
    "isin",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "nonzero",
    "one_hot",
    "put_along_axis",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "searchsorted",
    "take",
    "take_along_axis",
    "unique",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
]
