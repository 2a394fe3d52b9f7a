"""What a call of a compiled function can depend on: a walk over what its code can reach.

The walk starts at the arguments, the function and the globals of the code that ran in a trace
(`Scope`).  From there it goes along attributes whose names occur in that code, and along all
elements of containers.  Without a scope it goes everywhere.  It collects

    key        the structure of what was met: kinds, names, strings, dtypes and ranks
    facts      ints and floats, and sizes and strides of tensors, which can become inputs
    tensors, containers    in the order met

so that a later call with an equal key finds the same places again.  Objects are followed by
structure, not identity.  Over-guarding is allowed: whatever is reached is part of the key, used
or not.  What holds state that cannot be followed makes the survey `opaque`.
"""

from __future__ import annotations

import collections
import enum
import functools
import operator
import sys
import types
import weakref
from abc import ABCMeta, get_cache_token
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from dualgrad.gradients.hooks import hooks_of_leaf, on_leaves, stamp
from dualgrad.jit.forms import fact_key, shape_facts
from dualgrad.jit.kinds import (
    CLASS_TEXTS,
    COMPUTING,
    EVALUATING,
    FUNCTION_PARTS,
    FUNCTION_TEXTS,
    INERT,
    LOCKS,
    MACHINERY,
    OWN,
    PLAIN,
    SMALL_ARRAY,
    Same,
    is_foreign,
    is_one_of,
    is_random,
    is_value,
    plain_key,
    root_name,
    root_of,
    slots_of,
)
from dualgrad.jit.notes import (
    BASES,
    CELL_CONTENTS,
    CLASS,
    CLASS_ATTRIBUTE,
    CODE,
    CONTENTS,
    GET,
    ITEM,
    KEYS,
    LENGTH,
    MISSING,
    OWN_ATTRIBUTES,
    REGISTERED,
    SLOT,
    VALUES,
    Note,
    contents,
)
from dualgrad.jit.places import (
    ATTRIBUTE,
    CELL,
    DEFAULT,
    ELEMENT,
    ENTRY,
    GLOBAL,
    PART,
    ROOT,
    Part,
    Place,
)
from dualgrad.jit.scope import TRIES, WHOLE, Ran, Scope, codes_of, globals_of, unseen_by
from dualgrad.tensor import Tensor

TENSOR = "tensor"
REGISTRIES = ("_parameters", "_buffers", "_modules")  # of nn.Module: names of its attributes
# Methods that are most often not called by what has the instance at hand.
_LATE = frozenset({"__init__", "__post_init__", "__new__", "__repr__", "__str__", "__del__"})


_NAMED = (GLOBAL, CELL, ATTRIBUTE)  # places that code reaches by a name


class Survey:
    """The state that a call depends on."""

    __slots__ = (
        "_append_only_lists", "_modules", "_names", "_seen", "_tensor_parts", "appended",
        "argument_facts", "arguments", "computed", "containers", "fact_parts", "facts", "functions",
        "key", "met", "named", "notes", "noting", "numbers", "objects", "opaque", "owners", "part",
        "scope", "shared", "stand_ins", "tensors", "wide",
    )  # fmt: skip

    def __init__(self, scope: Scope | None = None, noting: bool = False) -> None:
        self.scope = None if scope is None or scope.wide else scope
        self.wide = scope is not None and scope.wide
        self.noting = noting
        self.key: list[Any] = []
        self.part: Part | None = None  # that is being looked at
        self.facts: list[int | float] = []
        self.fact_parts: list[Part] = []
        self.tensors: list[Tensor] = []
        self.containers: list[Any] = []
        self.owners: list[Any] = []  # cells, and objects with slots
        self.functions: set[types.CodeType] = set()  # whose state is part of the key
        self.named: set[str] = set()  # attributes that objects such as attrgetter look up
        self.computed = False  # objects such as getattr may look up any
        self.met: list[Ran] = []  # functions whose code is not in the scope
        self.notes: list[Note] = []
        self.arguments = 0  # how many of the tensors come from the arguments
        self.argument_facts = 0  # and how many of the facts
        self.stand_ins = False  # some facts are numbers that a trace has put there
        self.shared: set[int] = set()  # identities of tuples that stand in several places
        self.numbers: tuple[Any, ...] = ()  # what a path computes from the facts of this call
        self.opaque: str | None = None  # what cannot be followed
        self.appended: set[str] | frozenset[str] = (
            frozenset() if self.scope is None else self.scope.appended - self.scope.used
        )
        self._append_only_lists: dict[int, int] = {}  # by identity: their numbers
        self._seen: dict[int, int] = {}
        self.objects: list[object] = []  # in the order met, without tensors and plain values
        self._tensor_parts: list[Part] = []
        self._names: dict[str, None] = {}  # that occur in code, where there is no scope
        self._modules: list[Part] = []

    @property
    def places(self) -> list[Place]:
        """Where each of the facts stands."""
        return [Place.of(p) for p in self.fact_parts]

    def fact_keys(self) -> list[Any]:
        """Facts such that equal ones mean the same: floats bit by bit."""
        return [fact_key(x) for x in self.facts]

    def clear(self) -> None:
        """Let go of everything that was met."""
        for parts in (self.facts, self.fact_parts, self.tensors, self._tensor_parts, self.objects):
            parts.clear()
        self.part = (None, ROOT, None, None)

    @property
    def seen(self) -> set[int]:
        """Identities of all objects that were met."""
        return {*self._seen}

    def tensor_part(self, number: int) -> Part:
        return self._tensor_parts[number]

    def place_of_tensor(self, number: int) -> Place:
        return Place.of(self._tensor_parts[number])

    def visit(self, root: Any, key: Any) -> None:
        """Walk one root.  Iterative; each object once, later meetings as references."""
        self._walk([(root, ROOT, key, None)])

    def _walk(self, stack: list[Part]) -> None:
        key, seen, facts = self.key, self._seen, self.facts
        while stack:
            part = self.part = stack.pop()
            x = part[0]
            kind = x.__class__
            if kind is int or kind is float:
                key.append(kind)
                facts.append(x)
                if type(x) is not kind:
                    self.stand_ins = True
                self.fact_parts.append(part)
            elif kind in PLAIN:
                key.append((kind, x))
            elif isinstance(x, Tensor):
                self._tensor(part)
                if on_leaves and (hooks := hooks_of_leaf(x)) is not None:
                    stack += [(found, PART, None, part) for found in hooks if found]
            elif kind is list and part[2] in self.appended and part[1] in _NAMED:
                self._append_only(x)
            elif id(x) in seen:
                key.append(("again", seen[id(x)]))
                if isinstance(x, tuple):
                    self.shared.add(id(x))
            else:
                seen[id(x)] = len(seen)
                self.objects.append(x)
                parts = self._parts(part)
                parts.reverse()
                stack += parts

    def _append_only(self, x: list[Any]) -> None:
        """A list that is reached by a name under which it is only appended to."""
        self.key.append("appended to")
        if id(x) not in self._append_only_lists:
            self._append_only_lists[id(x)] = len(self.containers)
            self.containers.append(x)

    def unread(self) -> set[int]:
        """Numbers of the lists of which the code reads nothing, by whatever name."""
        found = self._append_only_lists
        return {n for key, n in found.items() if key not in self._seen}

    def _tensor(self, part: Part) -> None:
        x = part[0]
        found = self._seen.get(id(x))
        if found is not None:
            self.key.append(("again", found))
            return
        self._seen[id(x)] = len(self._seen)
        self.tensors.append(x)
        self._tensor_parts.append(part)
        structure, places, sizes = shape_facts(x)
        self.key.append((TENSOR, x.__class__, structure, x.requires_grad, x._grad_fn is None))
        self.facts += sizes
        self.fact_parts += [(n, k, d, part) for n, (k, d) in zip(sizes, places, strict=True)]

    def note(self, how: str, owner: Any, key: Any, held: Any) -> None:
        if self.noting:
            self.notes.append((how, owner, key, held))

    def stop(self, what: str) -> list[Part]:
        """Note that something cannot be followed."""
        self.opaque = self.opaque or what
        return []

    # -- what an object consists of -----------------------------------------------------------

    def _parts(self, part: Part) -> list[Part]:
        """The parts of an object; its structure goes into the key."""
        x = part[0]
        kind = type(x)
        parts = self._builtin(part)
        if parts is None:
            return self._code(part)
        if kind.__module__ != "builtins" and kind is not collections.deque:
            # A subclass of a builtin: its attributes, and those of its class.
            parts += self._attributes(part)
        return parts

    def _builtin(self, part: Part) -> list[Part] | None:
        """The parts of containers and numbers, also of their subclasses."""
        x = part[0]
        kind, key = type(x), self.key
        if isinstance(x, enum.Enum):
            key.append((kind, x.name))
            return []
        if isinstance(x, tuple):
            key.append((kind, len(x)))
            return [(e, ELEMENT, k, part) for k, e in enumerate(x)]
        if isinstance(x, list | collections.deque):
            key.append((kind, len(x)))
            self.containers.append(x)
            self.note(LENGTH, x, None, len(x))
            for k, e in enumerate(x) if self.noting else ():
                self.note(ITEM, x, k, e)
            return [(e, ENTRY, k, part) for k, e in enumerate(x)]
        if isinstance(x, dict):
            return self._dict(x, part)
        if isinstance(x, set | frozenset):
            key.append((kind, frozenset(plain_key(e) for e in x)))
            self.note(CONTENTS, x, None, tuple(x))
            return [(e, PART, None, part) for e in x if type(e) not in PLAIN]
        if isinstance(x, slice):
            key.append(kind)
            return [(e, PART, None, part) for e in (x.start, x.stop, x.step)]
        if isinstance(x, float):
            key.append((kind, float.hex(x)))
            return []
        if isinstance(x, complex):
            key.append((kind, x.real.hex(), x.imag.hex()))
            return []
        if isinstance(x, PLAIN):
            key.append((kind, x))
            return []
        return None

    def _dict(self, x: dict[Any, Any], part: Part) -> list[Part]:
        self.key.append((type(x), tuple(map(plain_key, x))))
        self.containers.append(x)
        self.note(KEYS, x, None, list(x))
        for k, v in x.items() if self.noting else ():
            self.note(GET, x, k, v)
        objects = [(k, PART, None, part) for k in x if type(k) not in PLAIN]
        return objects + [(v, ENTRY, k, part) for k, v in x.items()]

    def _code(self, part: Part) -> list[Part]:
        """The parts of functions, methods, cells, classes and modules."""
        x = part[0]
        kind, key = type(x), self.key
        if isinstance(x, types.FunctionType):
            key.append((kind, x.__code__))
            return self._function(x, part)
        if isinstance(x, types.MethodType):
            key.append(kind)
            return [(x.__self__, PART, None, part), (x.__func__, PART, None, part)]
        if isinstance(x, types.BuiltinFunctionType | types.MethodWrapperType):
            return self._builtin_method(x, part)
        if isinstance(x, types.CellType):
            key.append(kind)
            held = contents(x)
            self.owners.append(x)
            self.note(CELL_CONTENTS, x, None, held)
            return [] if held is MISSING else [(held, CELL, part[2], part)]
        if isinstance(x, partial):
            key.append(kind)
            parts = [(p, PART, None, part) for p in (x.func, x.args, x.keywords)]
            return parts + self._attributes(part)
        if isinstance(x, staticmethod | classmethod):
            return [(x.__func__, PART, None, part)]
        if isinstance(x, property):
            return [(f, PART, None, part) for f in (x.fget, x.fset) if f is not None]
        if isinstance(x, functools._lru_cache_wrapper):
            if not is_foreign(x.__module__):
                return self.stop(f"the cache of {x.__name__}")
            return [(x.__wrapped__, PART, None, part)]
        if isinstance(x, type):
            key.append(x)
            return self._class(x, part)
        if isinstance(x, types.ModuleType):
            key.append(Same(x))
            return [] if is_foreign(x.__name__) else self._module(x, part)
        return self._object(part)

    def _builtin_method(self, x: Any, part: Part) -> list[Part]:
        """The parts of a function in C, or of a method with what it is bound to."""
        owner = x.__self__
        if is_random(owner):
            return self.stop(f"random numbers of NumPy ({x.__name__})")
        if is_one_of(x, EVALUATING):
            return self.stop(x.__name__)
        self.computed = self.computed or x.__name__ == "__getattribute__" or is_one_of(x, COMPUTING)
        if owner is None or isinstance(owner, types.ModuleType):
            self.key.append(Same(x))
            return []
        self.key.append((type(x), x.__name__))
        return [(owner, PART, None, part)]

    def _module(self, module: types.ModuleType, part: Part) -> list[Part]:
        space, kind = module.__dict__, type(module)
        self.note(CLASS, module, None, (kind, space))
        parts: list[Part] = [] if kind is types.ModuleType else [(kind, PART, None, part)]
        if self.wide or self._reads(TRIES):
            self.note(KEYS, space, None, list(space))
        if self.wide:
            return parts + self._globals(space, (n for n in space if n[:2] != "__"), part)
        if self.scope is None:
            self._modules.append(part)
            return parts
        return parts + self._globals(space, self.scope.names & space.keys(), part)

    def _globals(self, space: dict[str, Any], names: Iterable[str], part: Part) -> list[Part]:
        """Entries of globals, those that are there; that others are not is noted as well."""
        names = sorted(names)
        present = [n for n in names if n in space]
        self.key.append(tuple(present))
        owner = (space, PART, None, part)
        for n in names if self.noting else ():
            self.note(GET, space, n, space.get(n, MISSING))
        return [(space[n], GLOBAL, n, owner) for n in present]

    def _function(self, f: types.FunctionType, part: Part) -> list[Part]:
        """What a function can read besides its arguments, if it runs."""
        if is_foreign(f.__module__):
            return []
        inner = self._texts(f, FUNCTION_TEXTS, part)
        if f.__dict__ or self._reads(TRIES):
            self.note(SLOT, f, "__dict__", f.__dict__)
            inner.append((f.__dict__, PART, None, part))
        if self.scope is not None and "__annotations__" in self.scope.names:
            inner.append((f.__annotations__, PART, None, part))
        if not self._runs(f):
            if f.__name__ not in _LATE:
                self.met.append((f.__code__, f.__globals__))
            return inner
        self.functions.add(f.__code__)
        self.note(CODE, f, None, (f.__code__, f.__defaults__, f.__kwdefaults__))
        self.key.append(len(f.__defaults__ or ()))
        inner += [(d, DEFAULT, k, part) for k, d in enumerate(f.__defaults__ or ())]
        if f.__kwdefaults__:
            inner.append((f.__kwdefaults__, DEFAULT, None, part))
        names = f.__code__.co_freevars
        inner += [(c, PART, n, part) for n, c in zip(names, f.__closure__ or (), strict=True)]
        if self.scope is None:
            for c in codes_of(f.__code__):
                self._names.update(dict.fromkeys(c.co_names))
                inner += self.code_globals(c, f.__globals__, part)
        return inner

    def _runs(self, f: types.FunctionType) -> bool:
        """Whether a function may run, or its parts be read."""
        scope = self.scope
        if scope is None or f.__code__ in scope.codes:
            return True
        return not FUNCTION_PARTS.isdisjoint(scope.names)

    def _reads(self, mark: str) -> bool:
        return self.scope is None or mark in self.scope.names

    def _texts(self, x: Any, names: Iterable[str], part: Part) -> list[Part]:
        """Attributes of functions and classes that stand in no dict, where code reads them."""
        names = [n for n in names if self._reads(n)]
        if names:
            self.owners.append(x)
        for n in names if self.noting else ():
            self.note(SLOT, x, n, getattr(x, n, MISSING))
        return [(getattr(x, n), PART, n, part) for n in names if hasattr(x, n)]

    def code_globals(self, code: types.CodeType, space: dict[str, Any], part: Part) -> list[Part]:
        """The globals that a code object reads, and the modules that it imports."""
        names = globals_of(code)
        for what in unseen_by(code, space):
            self.stop(what)
        imported = [sys.modules[n] for n in names if n not in space and n in sys.modules]
        found = self._globals(space, names, part)
        return found + [(m, PART, None, part) for m in imported]

    def _class(self, c: type, part: Part) -> list[Part]:
        """Attributes and functions of a user's class and its bases."""
        own, every = not is_foreign(c.__module__), self._all_of(c)
        parts = self._texts(c, CLASS_TEXTS, part) if own else []
        self.computed = self.computed or is_one_of(c, COMPUTING)
        self.note(BASES, c, None, c.__mro__)
        if isinstance(c, ABCMeta):
            self.key.append(get_cache_token())
            self.note(REGISTERED, c, None, get_cache_token())
        for base in c.__mro__:
            if is_foreign(base.__module__):
                continue
            names = [n for n, x in base.__dict__.items() if every or self._counts(n, x)]
            if "__match_args__" in names:
                self.named.update(map(str, base.__dict__["__match_args__"]))
            self.key.append((base, *names))
            owner = part if base is c else (base, PART, None, part)
            self.note(OWN_ATTRIBUTES, base, None, None)
            self.note(KEYS, base.__dict__, None, list(base.__dict__))
            for n in names if self.noting else ():
                self.note(CLASS_ATTRIBUTE, base, n, base.__dict__[n])
            parts += [(base.__dict__[n], ATTRIBUTE, n, owner) for n in names]
        if own:
            self.note(CLASS, c, None, (type(c), None))
            self.key.append(type(c))
        if not is_foreign(type(c).__module__):
            parts.append((type(c), PART, None, part))
        return parts

    def _counts(self, name: str, x: object) -> bool:
        """Whether an attribute of a class is followed."""
        if self.scope is not None and name in self.scope.names:
            return True
        if not name.startswith(("__", "_abc_")):
            return self.scope is None
        if callable(x) or isinstance(x, int | float | staticmethod | classmethod | property):
            return name not in MACHINERY
        return self.scope is None and name not in MACHINERY

    def _all_of(self, kind: type) -> bool:
        """Whether all attributes count: code of this package may ask for any, before it ran."""
        guess = self.scope is not None and self.scope.guess
        return guess and any(root_of(base) == OWN for base in kind.__mro__)

    def _object(self, part: Part) -> list[Part]:
        """The parts of any other instance."""
        x = part[0]
        kind, key = type(x), self.key
        inner = kind.__dict__.get("compiled_function")
        if inner is not None:  # a compiled function
            key.append(kind)
            parts = [(inner.__get__(x), PART, None, part)]
            if self._reads(TRIES) or any(map(self._reads, x.__dict__)):
                parts += self._instance_dict(x.__dict__, part)
            return parts
        if is_value(x):
            key.append((kind, str(x), repr(x)))
            return []
        if isinstance(x, weakref.ref):
            key.append(kind)
            return [(x(), PART, None, part)]
        if isinstance(x, operator.attrgetter | operator.methodcaller):
            self.named.update(n for a in x.__reduce__()[1] for n in str(a).split("."))
        if isinstance(x, types.MemberDescriptorType) and not is_foreign(x.__objclass__.__module__):
            self.named.add(x.__name__)
        self.computed = self.computed or is_one_of(x, COMPUTING)
        inert = root_of(kind) in ("typing", "abc", "_abc", "_typing")
        if isinstance(x, INERT) or inert:
            key.append(Same(x))
            return []
        if isinstance(x, np.ndarray):
            if x.nbytes > SMALL_ARRAY or x.dtype.hasobject or kind is not np.ndarray:
                return self.stop("a NumPy array")
            key.append((kind, x.dtype.str, x.shape, x.tobytes()))
            self.note(VALUES, x, None, None)
            return []
        if isinstance(x, LOCKS):
            return self.stop("a lock, which a compiled program would not hold")
        if hasattr(kind, "__next__") or is_random(x):
            return self.stop(f"a {kind.__name__}, whose state changes when it is used")
        if not hasattr(x, "__dict__") and not slots_of(kind):
            return self.stop(f"a {kind.__name__}, which cannot be followed")
        key.append(kind)
        if isinstance(x, BaseException):
            self.note(SLOT, x, "args", x.args)
            return [(x.args, PART, None, part), *self._attributes(part)]
        return self._attributes(part)

    def _attributes(self, part: Part) -> list[Part]:
        """Attributes of an instance, in its dict and its slots, and its class."""
        x = part[0]
        kind = type(x)
        attributes = getattr(x, "__dict__", None)
        self.note(CLASS, x, None, (kind, attributes))
        parts: list[Part] = [(kind, PART, None, part)] if root_name(kind.__module__) != OWN else []
        slots = slots_of(kind)
        if self.scope is not None and not self._all_of(kind):
            slots = tuple(n for n in slots if n in self.scope.names)
        present = [n for n in slots if hasattr(x, n)]
        if slots:
            self.owners.append(x)
            self.key.append(tuple(present))
            for n in slots if self.noting else ():
                self.note(SLOT, x, n, getattr(x, n, MISSING))
            parts += [(getattr(x, n), ATTRIBUTE, n, part) for n in present]
        if attributes is not None:
            parts += self._instance_dict(attributes, part)
        return parts

    def _instance_dict(self, attributes: dict[str, Any], part: Part) -> list[Part]:
        scope, x = self.scope, part[0]
        self.containers.append(attributes)
        if scope is None or self._all_of(type(x)):
            names = list(attributes)
        elif isinstance(x, types.SimpleNamespace) and not WHOLE.isdisjoint(scope.names):
            names = list(attributes)  # compared or shown in C
        else:
            wanted = scope.names
            if all(r in attributes for r in REGISTRIES):
                wanted = wanted.union(REGISTRIES, *(attributes[r] for r in REGISTRIES))
            names = [n for n in attributes if n in wanted]
        self.key.append(tuple(names))
        self.note(KEYS, attributes, None, list(attributes))
        for n in names if self.noting else ():
            self.note(GET, attributes, n, attributes[n])
        return [(attributes[n], ATTRIBUTE, n, part) for n in names]

    def finish(self) -> None:
        """Follow modules along the names that occur in code, until nothing new comes up."""
        done: set[tuple[int, str]] = set()
        found = True
        while found:
            found = False
            for part in tuple(self._modules):
                space = part[0].__dict__
                new = [n for n in self._names if n in space and (id(space), n) not in done]
                if new:
                    found = True
                    done.update((id(space), n) for n in new)
                    self._walk(self._globals(space, new, part))


def survey(
    roots: tuple[tuple[Any, Any], ...],
    scope: Scope | None = None,
    noting: bool = False,
    into: Survey | None = None,
) -> Survey:
    """The state reachable from roots (key, object), the first two of which are arguments."""
    out = Survey(scope, noting) if into is None else into
    out.note(GET, stamp, "now", stamp["now"])
    for k, (key, root) in enumerate(roots):
        out.visit(root, key)
        if k < 2:
            out.arguments, out.argument_facts = len(out.tensors), len(out.facts)
    for code, space in () if scope is None else scope.ran:
        parts = out.code_globals(code, space, (code, PART, None, None))
        parts.reverse()
        out._walk(parts)
    if out.scope is None:
        out.finish()
    return out


def possible(roots: tuple[tuple[Any, Any], ...]) -> Survey:
    """The state that a function can depend on, as far as one can see before it has run."""
    scope = Scope(guess=True)
    while True:
        found = survey(roots, scope)
        wider = scope.joined(found.met, (), False)
        if wider is scope or wider.wide:
            return found if wider is scope else survey(roots)
        scope = wider
