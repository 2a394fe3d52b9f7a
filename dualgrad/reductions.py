"""The reductions and scans of `dualgrad`, under NumPy's and PyTorch's names."""

from dualgrad.compiler.ops.cumulative import (
    cumulative_prod,
    cumulative_sum,
    diff,
    logcumsumexp,
)
from dualgrad.compiler.ops.extremum import argmax, argmin, nanmax, nanmin
from dualgrad.compiler.ops.extremum import reduce_all as all
from dualgrad.compiler.ops.extremum import reduce_any as any
from dualgrad.compiler.ops.extremum import reduce_max as amax
from dualgrad.compiler.ops.extremum import reduce_max as max
from dualgrad.compiler.ops.extremum import reduce_min as amin
from dualgrad.compiler.ops.extremum import reduce_min as min
from dualgrad.compiler.ops.product import prod
from dualgrad.compiler.ops.quantile import median, nanmedian, nanquantile, quantile
from dualgrad.compiler.ops.reduce import mean
from dualgrad.compiler.ops.reduce import reduce_sum as sum
from dualgrad.compiler.ops.scan import (
    cummax,
    cummin,
    cumprod,
    cumsum,
    linear_recurrence,
)
from dualgrad.compiler.ops.statistics import (
    average,
    count_nonzero,
    logsumexp,
    nanmean,
    nanstd,
    nansum,
    nanvar,
    std,
    std_mean,
    var,
    var_mean,
    vector_norm,
)
from dualgrad.compiler.ops.statistics import vector_norm as norm

__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "average",
    "count_nonzero",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "linear_recurrence",
    "logcumsumexp",
    "logsumexp",
    "max",
    "mean",
    "median",
    "min",
    "nanmax",
    "nanmean",
    "nanmedian",
    "nanmin",
    "nanquantile",
    "nanstd",
    "nansum",
    "nanvar",
    "norm",
    "prod",
    "quantile",
    "std",
    "std_mean",
    "sum",
    "var",
    "var_mean",
    "vector_norm",
]
