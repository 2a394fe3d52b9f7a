"""States of modules: their parameters and buffers by name, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dualgrad.gradients.hooks import Handle, Hook, Hooks, refuse_in_trace
from dualgrad.interop import values_of
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.tree import Tree, join
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad.nn.module import Module

EXTRA = "_extra_state"  # the name of what `get_extra_state` returns


class LoadResult(NamedTuple):
    """Names that were on one side only.

    missing_keys     in the module, not in the state
    unexpected_keys  in the state, not in the module
    """

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        missing, unexpected = self
        return f"LoadResult(missing_keys={missing}, unexpected_keys={unexpected})"


class StateHooks:
    """The hooks of one module's state, in the order in which they run."""

    def __init__(self) -> None:
        self.before_save: Hooks = {}
        self.after_save: Hooks = {}
        self.before_load: Hooks = {}
        self.after_load: Hooks = {}


class Stateful(Tree):
    """The part of `Module` that saves and loads its state."""

    _state_hooks: StateHooks | None = None

    def state_dict(
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """Parameters and persistent buffers by dotted name, detached but sharing memory.

        destination  a dict that they are put into
        prefix       text before each name, such as "encoder."
        keep_vars    the parameters and buffers themselves, not detached
        """
        found: dict[str, Any] = {} if destination is None else destination
        hooks = self._state_hooks
        if hooks is not None:
            for hook in list(hooks.before_save.values()):
                hook(self, prefix, keep_vars)
        for name in _own_names(self):
            value = getattr(self, name)
            if value is not None:
                found[prefix + name] = value if keep_vars else value.detach()
        if _has(self, "get_extra_state"):
            found[prefix + EXTRA] = self.get_extra_state()
        for name in self._modules:
            child = getattr(self, name)
            if child is not None:
                child.state_dict(destination=found, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        if hooks is not None:
            for hook in list(hooks.after_save.values()):
                if hook(self, found, prefix, {}) is not None:
                    raise _returned("register_state_dict_post_hook", "the state")
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> LoadResult:
        """Copy the values of `state_dict` (tensors or arrays) into parameters and buffers.

        All is checked first: if it does not fit, nothing is changed.  With `strict=False`, names
        on one side only are left alone and returned.  With `assign=True` the tensors of the state
        take the place of those of the module, dtypes and devices included.

        Raises ArgumentError with one line per name that does not fit.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentError(
                "a state is a dict of tensors",
                op="load_state_dict",
                expect="what state_dict() returns",
                actual=type(state_dict).__name__,
                hint="pass model.state_dict()",
            )
        return _Loading(self, state_dict, strict, assign).run()

    def get_extra_state(self) -> Any:
        """More state than tensors, saved as "_extra_state"; for subclasses to state."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_extra_state()")

    def set_extra_state(self, state: Any) -> None:
        """Take what `get_extra_state` has returned; for subclasses to state."""
        raise NotImplementedError(f"{type(self).__name__} does not define set_extra_state()")

    def _upgrade_state(
        self, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]
    ) -> None:
        """Let a state of an earlier version be as one of now; for layers to state."""

    # -- hooks

    def _register_state_hook(self, kind: str, hook: Hook) -> Handle:
        refuse_in_trace("a hook is registered on a module")
        if self._state_hooks is None:
            object.__setattr__(self, "_state_hooks", StateHooks())
        return Handle(getattr(self._state_hooks, kind), hook)

    def register_state_dict_pre_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, prefix, keep_vars)` before `state_dict` collects this module."""
        return self._register_state_hook("before_save", hook)

    def register_state_dict_post_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after it, to change the dict."""
        return self._register_state_hook("after_save", hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> Handle:
        """Call a hook with a copy of the state, to change it, before it is compared and loaded.

        The hook is `hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`; what it adds to the lists counts as found.
        """
        return self._register_state_hook("before_load", hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, incompatible_keys)` when the state is loaded.

        The hook may change the two lists; with `strict=True` names that they still hold undo all.
        """
        return self._register_state_hook("after_load", hook)


class _Loading:
    """One call of `load_state_dict`."""

    def __init__(
        self, module: Stateful, given: Mapping[str, Any], strict: bool, assign: bool
    ) -> None:
        self.module, self.strict, self.assign = module, strict, assign
        self.state = dict(given)
        self.metadata: Mapping[str, Any] = getattr(given, "_metadata", None) or {}
        self.result = LoadResult([], [])
        self.errors: list[str] = []
        # by name: the module that has it, and its name there
        self.places: dict[str, tuple[Module, str]] = {}
        self.extras: dict[str, Module] = {}

    def run(self) -> LoadResult:
        self._prepare()
        after = [(m, hook) for m in self.module.modules() for hook in _hooks(m, "after_load")]
        self._compare()
        sources = self._sources()
        self._refuse(names=not after)
        undo = self._undo() if after or self.extras else None
        try:
            with no_grad():
                for path, source in sources.items():
                    self._put(path, source)
                for path, module in self.extras.items():
                    if path in self.state:
                        module.set_extra_state(self.state[path])
                for module, hook in after:
                    if hook(module, self.result) is not None:
                        raise _returned("register_load_state_dict_post_hook", "the names")
            self._refuse(names=True)
        except BaseException:
            if undo is not None:
                undo()
            raise
        return self.result

    def _prepare(self) -> None:
        """Let hooks change the copied state, then find what the module has."""
        missing, unexpected = self.result
        for path, module in self.module.named_modules(remove_duplicate=False):
            prefix, metadata = f"{path}." if path else "", self.metadata.get(path, {})
            module._upgrade_state(self.state, prefix, metadata)
            for hook in _hooks(module, "before_load"):
                hook(module, self.state, prefix, metadata, self.strict,
                     missing, unexpected, self.errors)  # fmt: skip
        for path, module in self.module.named_modules(remove_duplicate=False):
            for name in _own_names(module):
                if getattr(module, name) is not None:
                    self.places[join(path, name)] = module, name
            if _has(module, "set_extra_state"):
                self.extras[join(path, EXTRA)] = module

    def _compare(self) -> None:
        known = (*self.places, *self.extras)
        missing, unexpected = self.result
        missing += [name for name in known if name not in self.state]
        unexpected += [name for name in self.state if name not in set(known)]

    def _sources(self) -> dict[str, Tensor]:
        """The values of the state as tensors; notes those that do not fit."""
        sources = {}
        for path, (module, name) in self.places.items():
            if path not in self.state:
                continue
            source, own = _as_tensor(self.state[path]), _shape(getattr(module, name))
            if source is None:
                kind = type(self.state[path]).__name__
                self.errors.append(f"type        {path} {own} in the module, {kind} in the state")
            elif _shape(source) != own:
                text = f"{own} in the module, {_shape(source)} in the state"
                self.errors.append(f"shape       {path} {text}")
            elif self.assign and getattr(module, name).requires_grad and not source.dtype.is_float:
                self.errors.append(f"dtype       {path} must be a float, not {source.dtype.name}")
            else:
                sources[path] = source
        return sources

    def _refuse(self, names: bool) -> None:
        """Raise ArgumentError if there is anything that forbids loading."""
        missing, unexpected = self.result if self.strict and names else ([], [])
        lines = [f"missing     {name}{self._shape_of(name)}" for name in missing]
        lines += [f"unexpected  {name}{self._shape_of(name)}" for name in unexpected]
        lines += self.errors
        if lines:
            raise ArgumentError(
                f"the state does not fit this {type(self.module).__name__}",
                op="load_state_dict",
                actual="".join(f"\n    {line}" for line in lines),
                hint=_renaming(missing, unexpected)
                or (
                    "strict=False loads the names that both sides have"
                    if missing or unexpected
                    else "make the module with the sizes of the state"
                ),
            )

    def _shape_of(self, name: str) -> str:
        if name in self.places:
            module, own = self.places[name]
            return f" {_shape(getattr(module, own))}"
        source = _as_tensor(self.state.get(name))
        return "" if source is None else f" {_shape(source)}"

    def _put(self, path: str, source: Tensor) -> None:
        module, name = self.places[path]
        own = getattr(module, name)
        if not self.assign:
            own.copy_(source)
        elif isinstance(own, Parameter):
            setattr(module, name, Parameter(source, requires_grad=own.requires_grad))
        else:
            setattr(module, name, source.detach())

    def _undo(self) -> Callable[[], None]:
        """What makes parameters and buffers, and extra states, as they are now."""
        held = [(m, n, getattr(m, n), getattr(m, n).clone()) for m, n in self.places.values()]
        both = [m for m in self.extras.values() if _has(m, "get_extra_state")]
        extras = [(module, module.get_extra_state()) for module in both]

        def undo() -> None:
            with no_grad():
                for module, name, tensor, values in held:
                    tensor.copy_(values)
                    setattr(module, name, tensor)
                for module, extra in extras:
                    module.set_extra_state(extra)

        return undo


def _renaming(missing: list[str], unexpected: list[str]) -> str:
    """What makes the one list the other, if their names differ by what they begin with."""
    ours, theirs = min(missing, default=""), min(unexpected, default="")
    if ours and theirs.endswith(f".{ours}"):  # of a model that was wrapped in another
        prefix = theirs.removesuffix(ours)
        if sorted(prefix + name for name in missing) == sorted(unexpected):
            return f"pass {{k.removeprefix({prefix!r}): v for k, v in state.items()}}"
    if theirs and ours.endswith(f".{theirs}"):
        prefix = ours.removesuffix(theirs)
        if sorted(prefix + name for name in unexpected) == sorted(missing):
            return f"pass {{{prefix!r} + k: v for k, v in state.items()}}"
    return ""


def _own_names(module: Tree) -> Iterator[str]:
    """Names of the parameters and persistent buffers of a module, without those below it."""
    yield from module._parameters
    for name, persistent in module._buffers.items():
        if persistent:
            yield name


def _hooks(module: Stateful, kind: str) -> list[Hook]:
    hooks = module._state_hooks
    return [] if hooks is None else list(getattr(hooks, kind).values())


def _has(module: Stateful, method: str) -> bool:
    """Whether the class of a module states the method, or an instance does."""
    return getattr(type(module), method) is not getattr(Stateful, method)


def _as_tensor(value: Any) -> Tensor | None:
    """A value of a state, an array or a tensor of any library, as a tensor; None if it is none."""
    try:
        return values_of(value)
    except (TypeError, ValueError, BufferError, RuntimeError):
        return None


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _returned(registered: str, what: str) -> ArgumentError:
    return ArgumentError(
        "a hook returns something",
        op=registered,
        expect="None",
        actual="another value",
        hint=f"change {what} in place",
    )
