"""Lists and dicts of parameters, which are registered; other values are kept beside them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn, Self, overload

from dualgrad.nn.containers import pairs
from dualgrad.nn.module import Module
from dualgrad.nn.numbered import position
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class _Values(Module):
    """Values that are attributes; tensors become parameters."""

    def _keep(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and not isinstance(value, Parameter):
            value = Parameter(value)
        if hasattr(type(self), name):
            raise ArgumentError(
                "this name cannot be registered",
                op=type(self).__name__,
                expect="a name that is no attribute of the class",
                actual=repr(name),
                hint="choose another name",
            )
        setattr(self, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} holds values, it has no forward()")


def _described(named: Iterable[tuple[Any, Any]]) -> str:
    return "\n".join(f"  ({name}): {_text(value)}" for name, value in named)


def _text(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"Object of type: {type(value).__name__}"
    kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
    place = "" if value.device == "cpu" else f" ({value.device})"
    return f"{kind} containing: [{value.dtype} of size {'x'.join(map(str, value.shape))}{place}]"


class ParameterList(_Values):
    """A list of parameters, named "0", "1", ...; tensors that are added become parameters, other
    values are kept as they are."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        self._size = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, str(k)) for k in range(self._size))

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return getattr(self, str(position("ParameterList", index, self._size, what="value")))

    def __setitem__(self, index: int, value: Any) -> None:
        self._keep(str(position("ParameterList", index, self._size, what="value")), value)

    def append(self, value: Any) -> Self:
        """Put a value at the end; returns self."""
        self._keep(str(self._size), value)
        self._size += 1
        return self

    def extend(self, values: Iterable[Any]) -> Self:
        """Put several values at the end; returns self.

        Raises ArgumentError for a tensor, and for what is not iterable.
        """
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            raise ArgumentError(
                "there are no values",
                op="ParameterList",
                expect="something iterable",
                actual=type(values).__name__,
                hint="put it in a list, or append it",
            )
        for value in list(values):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> Self:
        return self.extend(values)

    def extra_repr(self) -> str:
        return _described(enumerate(self))


class ParameterDict(_Values):
    """Parameters by name, in their order; tensors that are added become parameters, other values
    are kept as they are.

    Built from a mapping or from pairs (name, value).
    """

    def __init__(self, parameters: Any = None) -> None:
        self._keys: dict[str, None] = {}
        if parameters is not None:
            self.update(parameters)

    def _dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._keys}

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._keep(key, value)
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._dict().keys()

    def items(self) -> ItemsView[str, Any]:
        """Names and values."""
        return self._dict().items()

    def values(self) -> ValuesView[Any]:
        """The values."""
        return self._dict().values()

    def get(self, key: str, default: Any = None) -> Any:
        """The value under a name, or the default."""
        return getattr(self, key) if key in self._keys else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value under a name, which is the default if there was none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Take out a value and return it."""
        value = self[key]
        del self[key]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Take out the last name and value and return them."""
        if not self._keys:
            raise KeyError("the ParameterDict is empty")
        key = next(reversed(self._keys))
        return key, self.pop(key)

    def clear(self) -> None:
        """Take out all values."""
        for name in list(self._keys):
            del self[name]

    def copy(self) -> ParameterDict:
        """A ParameterDict of the same parameters."""
        return type(self)(OrderedDict(self._dict()))

    def fromkeys(self, keys: Iterable[str], default: Any = None) -> ParameterDict:
        """A ParameterDict with one value under all names."""
        return type(self)((key, default) for key in keys)

    def update(self, parameters: Any) -> None:
        """Take over the values of a mapping or of pairs (name, value).

        Those of a plain dict are taken in the order of their names, as in PyTorch.
        """
        given = pairs("ParameterDict", parameters)
        ordered = isinstance(parameters, OrderedDict | ParameterDict)
        if isinstance(parameters, Mapping) and not ordered:
            given = sorted(given, key=lambda pair: str(pair[0]))
        for name, value in given:
            self[name] = value

    def __or__(self, other: Any) -> ParameterDict:
        merged = self.copy()
        merged.update(other)
        return merged

    def __ror__(self, other: Any) -> ParameterDict:
        merged = type(self)(other)
        merged.update(self)
        return merged

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def extra_repr(self) -> str:
        return _described(self.items())
