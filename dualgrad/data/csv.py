"""Reader of tables in text files (RFC 4180): columns of numbers or text."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.files import opened
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import ArgumentError, DataError
from dualgrad.runtime.records import dataclass

_OP: Final = "read_csv"
_LONGEST: Final = 1 << 24
"""Bytes of a line: what is longer is no table, and need not come into memory."""
_BOM: Final = b"\xef\xbb\xbf"
_BOUND: Final = 2**63

Column = NDArray[Any]


@dataclass
class _Table:
    """The text of a file.

    names  of the columns
    lines  on which each row begins, from 1
    rows   fields of each row, as many as there are names
    """

    file: str
    names: list[str]
    lines: list[int]
    rows: list[list[str]]


def read_csv(
    path: str | os.PathLike[str],
    *,
    delimiter: str = ",",
    header: bool = True,
    columns: Sequence[str] | None = None,
    types: Mapping[str, Any] | None = None,
) -> dict[str, Column]:
    """Return the columns of a table by name, each an array [rows].

    delimiter  one character between the fields
    header     whether the first row has the names of the columns; else they are "0", "1", ...
    columns    the names of those wanted, in that order; None is all
    types      dtypes of columns by name; `str` keeps the text.  A column that is not named is
               int64 if each field is such an integer, else float64 if each field is a number or
               empty, else text

    The file is UTF-8 and may be compressed with gzip.  Fields may stand in double quotes; an
    empty field is NaN in a column of floats.  Empty lines are left out.

    Raises DataError, which names line and column, for a file that is damaged or does not fit
    `types`; ArgumentError for names that the file does not have.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ArgumentError(
            "no delimiter", op=_OP, expect="one character, no quote and no end of line",
            actual=repr(delimiter), hint="give ',' or '\\t'",
        )  # fmt: skip
    with opened(path, _OP) as file:
        table = _read(file, os.fspath(path), delimiter, header)
    wanted = table.names if columns is None else list(columns)
    _check_names(table, wanted)
    _check_names(table, types or {})
    places = {name: i for i, name in enumerate(table.names)}
    given = types or {}
    return {name: _column(table, places[name], given.get(name)) for name in wanted}


def _read(file: BinaryIO, name: str, delimiter: str, header: bool) -> _Table:
    reader = csv.reader(_lines(file, name), delimiter=delimiter, strict=True)
    table = _Table(name, [], [], [])
    before = 0
    try:
        for row in reader:
            start, before = before + 1, reader.line_num
            if not row:
                continue
            if not table.names:
                table.names = row if header else [str(i) for i in range(len(row))]
                if header:
                    continue
            if len(row) != len(table.names):
                raise _damaged(
                    f"line {start} of {name} has another number of fields",
                    expect=f"{len(table.names)}, as the first line",
                    actual=str(len(row)),
                )
            table.lines.append(start)
            table.rows.append(row)
    except csv.Error as error:
        raise _damaged(
            f"line {before + 1} of {name} is no line of a table",
            expect="fields, of which those with quotes or ends of line stand in quotes",
            actual=str(error),
        ) from error
    if not table.names:
        raise _damaged(f"{name} has no lines", expect="a table", actual="an empty file")
    if len(set(table.names)) < len(table.names):
        twice = sorted({n for n in table.names if table.names.count(n) > 1})
        raise _damaged(
            f"{name} has columns of the same name", expect="one of each name", actual=str(twice)
        )
    return table


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a file.  Raises DataError for what is not UTF-8, with the byte."""
    at = 0
    while line := file.readline(_LONGEST + 1):
        if len(line) > _LONGEST:
            raise _damaged(
                f"{name} has a line of more than {_LONGEST} bytes, from byte {at} on",
                expect="lines of a table",
                actual="no end of line",
            )
        text = line.removeprefix(_BOM) if at == 0 else line
        try:
            yield text.decode("utf-8")
        except UnicodeDecodeError as error:
            where = at + len(line) - len(text) + error.start
            raise _damaged(
                f"{name} is not UTF-8 at byte {where}",
                expect="text in UTF-8",
                actual=f"0x{text[error.start]:02x}: {error.reason}",
            ) from error
        at += len(line)


def _check_names(table: _Table, names: Iterable[str]) -> None:
    unknown = [name for name in names if name not in table.names]
    if unknown:
        raise ArgumentError(
            f"{table.file} has no column {', '.join(map(repr, unknown))}",
            op=_OP,
            expect=", ".join(map(repr, table.names)),
            actual=", ".join(map(repr, unknown)),
            hint="with header=False the columns are '0', '1', ...",
        )


def _column(table: _Table, place: int, wanted: Any) -> Column:
    fields = [row[place] for row in table.rows]
    if wanted is None:
        return _guessed(fields)
    if wanted is str:
        return np.array(fields, np.str_)
    dtype = as_dtype(wanted)
    read, values = _reader(dtype), []
    for line, text in zip(table.lines, fields, strict=True):
        try:
            values.append(read(text))
        except ValueError:
            raise _damaged(
                f"line {line} of {table.file} has no {dtype.name} in column {table.names[place]!r}",
                expect=f"what {dtype.name} can hold",
                actual=repr(text),
            ) from None
    with np.errstate(over="ignore"):  # to infinity, as every rounding to this dtype
        return np.array(values, np.float64 if dtype.is_float else dtype.numpy).astype(dtype.numpy)


def _reader(dtype: DType) -> Callable[[str], Any]:
    """From a field to a value of a dtype; raises ValueError for what is none."""
    if dtype.numpy.kind == "b":
        return _bool
    if dtype.is_float and dtype.numpy.kind == "f":
        return _float
    if not dtype.is_int:
        raise ArgumentError(
            f"columns cannot be {dtype.name}", op=_OP, expect="a dtype that NumPy has, or str",
            actual=dtype.name, hint="read float32, and convert the tensor",
        )  # fmt: skip
    limits = np.iinfo(dtype.numpy)

    def read(text: str) -> int:
        value = _int(text)
        if not limits.min <= value <= limits.max:
            raise ValueError
        return value

    return read


def _bool(text: str) -> bool:
    return ("false", "true", "0", "1").index(text.strip().lower()) % 2 == 1


def _guessed(fields: list[str]) -> Column:
    try:
        integers = [_int(field) for field in fields]
        if all(-_BOUND <= value < _BOUND for value in integers):
            return np.array(integers, np.int64)
        return np.array(fields, np.str_)  # a float would lose digits of it
    except ValueError:
        pass
    try:
        return np.array([_float(field) for field in fields], np.float64)
    except ValueError:
        return np.array(fields, np.str_)


def _int(text: str) -> int:
    return int(_number(text))


def _float(text: str) -> float:
    return float(_number(text)) if text.strip() else float("nan")


def _number(text: str) -> str:
    """The text, unless it is a number to Python only."""
    if "_" in text or not text.isascii():
        raise ValueError
    return text


def _damaged(what: str, *, expect: str, actual: str) -> DataError:
    return DataError(
        what,
        op=_OP,
        expect=expect,
        actual=actual,
        hint="correct the file; another delimiter or `types` may be what it needs",
    )
