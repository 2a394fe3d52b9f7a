"""Records mean what data classes of the standard library mean: each case is made with both."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from dualgrad.runtime import records

Decorator = Callable[..., Any]
BOTH = (dataclasses.dataclass, records.dataclass)


def plain_classes(dataclass: Decorator) -> list[Any]:
    """Classes with fields, defaults and bases."""

    @dataclass
    class Plain:
        x: int
        y: str = "y"
        parts: list[int] = dataclasses.field(default_factory=list)
        kind: ClassVar[int] = 3

    @dataclass(frozen=True)
    class Frozen:
        x: float
        y: tuple[int, ...] = ()

    @dataclass(frozen=True)
    class Longer(Frozen):
        z: int = 5
        x: float = 0.5

    @dataclass(frozen=True)
    class One:
        x: float

    @dataclass(frozen=True)
    class Empty:
        pass

    @dataclass(eq=False)
    class Identity:
        x: int = 1

    return [Plain, Frozen, Longer, One, Empty, Identity]


def special_classes(dataclass: Decorator) -> list[Any]:
    """Classes with hidden and computed fields, and with methods of their own."""

    @dataclass(frozen=True)
    class Hidden:
        x: int
        note: str = dataclasses.field(default="", compare=False)
        secret: str = dataclasses.field(default="s", repr=False, compare=False)

    @dataclass
    class Computed:
        x: int
        double: int = dataclasses.field(init=False)
        seen: list[int] = dataclasses.field(init=False, default_factory=list)

        def __post_init__(self) -> None:
            self.double = 2 * self.x

    @dataclass(frozen=True, repr=False)
    class Own:
        x: int

        def __repr__(self) -> str:
            return f"<{self.x}>"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own) and self.x % 2 == other.x % 2

        def __hash__(self) -> int:
            return self.x % 2

    @dataclass(frozen=True)
    class OwnEquality:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

    return [Hidden, Computed, Own, OwnEquality]


def classes(dataclass: Decorator) -> list[Any]:
    """One class of each kind that is used in dualgrad."""
    return plain_classes(dataclass) + special_classes(dataclass)


NAN = float("nan")
ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1,), {"y": "z"}),
    ((2, (3,)), {}),
    ((1, (2,), 3), {}),
    ((), {"x": NAN}),
    ((1, 2, 3, 4), {}),
    ((1,), {"unknown": 1}),
    ((1,), {"note": "other"}),
    ((), {"z": 4}),
]


def made(cls: Any) -> list[Any]:
    """The instance for each of the arguments, or the kind of exception."""
    found = []
    for args, kwargs in ARGUMENTS:
        try:
            found.append(cls(*args, **kwargs))
        except TypeError:
            found.append(TypeError)
    return found


def relations(cls: Any) -> list[Any]:
    objects = [x for x in made(cls) if x is not TypeError]
    return [
        [x == y for x, y in itertools.product(objects, repeat=2)],
        [x != 1 for x in objects],
        [_hash_of(x) for x in objects] if cls.__name__ != "Identity" else [],
    ]


def _hash_of(x: Any) -> Any:
    try:
        return hash(x)
    except TypeError:
        return TypeError


PAIRS = list(zip(*map(classes, BOTH), strict=True))
each_pair = pytest.mark.parametrize(("std", "own"), PAIRS, ids=[a.__name__ for a, _ in PAIRS])


@each_pair
def test_instances(std: Any, own: Any) -> None:
    expected, found = made(std), made(own)
    assert [x is TypeError for x in found] == [x is TypeError for x in expected]
    for a, b in zip(expected, found, strict=True):
        if a is not TypeError:
            assert repr(a).rpartition(".")[2] == repr(b).rpartition(".")[2]
            assert repr(vars(a)) == repr(vars(b))


@each_pair
def test_relations(std: Any, own: Any) -> None:
    assert relations(own) == relations(std)


@each_pair
def test_fields(std: Any, own: Any) -> None:
    def listed(cls: Any) -> list[Any]:
        return [(f.name, f.init, f.compare, f.repr) for f in dataclasses.fields(cls)]

    assert dataclasses.is_dataclass(own)
    assert listed(own) == listed(std)
    assert own.__match_args__ == std.__match_args__


@each_pair
def test_frozen(std: Any, own: Any) -> None:
    def outcome(cls: Any) -> list[Any]:
        x, found = next(x for x in made(cls) if x is not TypeError), []
        for act in (lambda: setattr(x, "x", 9), lambda: delattr(x, "x")):
            try:
                found.append(act())
            except AttributeError as error:
                found.append((type(error), str(error)))
        return found

    if std.__name__ != "Empty":  # which has no field to change
        assert outcome(own) == outcome(std)


def test_replace_copy_and_pickle() -> None:
    x = Somewhere(1, ["a"])
    y = dataclasses.replace(x, x=2)
    assert (y.x, y.names) == (2, ["a"])
    assert copy.copy(x) == x == copy.deepcopy(x) == pickle.loads(pickle.dumps(x))
    match x:
        case Somewhere(1, names):
            assert names == ["a"]
        case _:
            pytest.fail("no match")


@records.dataclass
class Somewhere:
    x: int
    names: list[str] = records.field(default_factory=list)


def test_defaults_are_made_anew() -> None:
    assert Somewhere(1).names is not Somewhere(1).names


def test_instances_that_hold_themselves_are_printed() -> None:
    x = Somewhere(1)
    x.names.append(x)  # type: ignore[arg-type]
    assert repr(x) == "Somewhere(x=1, names=[...])"


def test_many_instances_compile_an_init() -> None:
    @records.dataclass(frozen=True)
    class Late:
        x: int
        y: tuple[int, ...] = ()

    first = Late(1)
    before = Late.__init__
    for k in range(100):
        assert Late(k, (k,)) == Late(x=k, y=(k,))
    assert Late.__init__ is not before
    assert Late.__init__.__qualname__.endswith("Late.__init__")
    assert Late.__init__.__globals__ is globals()
    assert first == Late(1) != Late(1, (2,))


@each_pair
def test_compiled_init(std: Any, own: Any) -> None:
    expected = made(std)
    for _ in range(50):
        found = made(own)
    assert [repr(vars(x)) for x in found if x is not TypeError] == [
        repr(vars(x)) for x in expected if x is not TypeError
    ]
