"""A path as instructions for native code: its guards, its program, what it makes and changes.

`plan_calls` gives the words of a path's table (`dualgrad.entries.calls`), or None for a path that
does something for which there is no instruction: Python runs it.
"""

from __future__ import annotations

import ctypes
from typing import Any

from dualgrad.backends.cpu import CpuBound
from dualgrad.compiler.launch import size_of
from dualgrad.entries import calls, guards
from dualgrad.entries.guards import Words
from dualgrad.entries.program import record_of
from dualgrad.entries.state import mode_word
from dualgrad.entries.tensors import NONE
from dualgrad.jit.alias import Source
from dualgrad.jit.containers import Effect
from dualgrad.jit.guards import Writer
from dualgrad.jit.notes import CELL_CONTENTS, GET, OWN_ATTRIBUTES, SLOT
from dualgrad.jit.path import Path, Sizes
from dualgrad.jit.places import ATTRIBUTE, CELL, ENTRY, GLOBAL, Place
from dualgrad.jit.rebinding import Rebinding
from dualgrad.jit.rebuild import (
    Again,
    Constant,
    New,
    OfContainer,
    OfGradient,
    OfNumber,
    OfOutput,
    OfTensor,
)
from dualgrad.jit.table import Unserved
from dualgrad.runtime import memory
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Native
from dualgrad.runtime.native.layout import ITEMS
from dualgrad.tensor import Tensor

_set_attribute = type.__setattr__


def plan_calls(path: Path, writer: Writer) -> Words | None:
    """The words of a path's table; the check of the path has been written."""
    if writer.table.unserved or not guards.fits() or not library.is_loaded():
        return None
    if type(path.sizes.bound) is not CpuBound:
        return None
    try:
        return _Replay(path, writer).words()
    except Unserved:
        return None


def plan_of(path: Path, sizes: Sizes) -> Words:
    """The plan of a path's program for some sizes."""
    bound: Any = sizes.bound
    types = [o.type.with_shape(size_of(o.type.shape, sizes.values)) for o in path.outputs]
    words = [record_of(bound), id(sizes.values), *map(id, types)]
    return Words(words, bound, sizes.values, types)


class _Replay:
    """Writes the instructions behind the guards."""

    def __init__(self, path: Path, writer: Writer) -> None:
        self.path, self.writer, self.found = path, writer, writer.found
        self.table = writer.table
        self.kept: list[Any] = []
        self.code: list[int] = []
        self.held: set[int] = set()  # registers
        self.made: dict[int, int] = {}  # new containers by identity: registers
        self.owned = 0  # references that the call owns at its end

    # -- words --------------------------------------------------------------------------------

    def emit(self, instruction: Native, *words: int) -> None:
        self.code += (instruction.address, *words)

    def registers(self, count: int) -> int:
        """The first of a row of registers."""
        row = [self.table.new_register() for _ in range(count)]
        return row[0] if row else guards.FIRST

    def operand(self, x: Any) -> int:
        return self.table.operand(x)

    def constant(self, x: Any) -> int:
        self.kept.append(x)
        return id(x)

    def words(self) -> Words:
        if self.path.calls:
            raise Unserved
        table = self.table.words()  # takes registers
        self.check_gradients()
        self.check_memory()
        plan = self.find_plan()
        scalars = self.numbers()
        arrays = self.run(plan, scalars)
        if self.path.sizes.single is not None and self.path.block is None:
            self.single(arrays, plan)
        else:
            self.make_all(arrays, plan, scalars)
        self.emit(guards.done)
        if self.table.unserved or self.owned + len(self.held) > calls.HELD_WORDS:
            raise Unserved
        mode = mode_word(self.writer.grad_enabled, self.writer.mixed)
        hold = [calls.hold.address, len(self.held), *sorted(self.held)] if self.held else []
        return Words([mode, *table, *hold, *self.code], self.kept, self.table.kept, self.path)

    # -- what has to hold besides the guards --------------------------------------------------

    def check_gradients(self) -> None:
        """Gradients look as they did in the trace; see `path.grad_pattern`."""
        path, tensors = self.path, self.found.tensors
        single: list[int] = []  # registers of gradients that are nothing else
        registers: dict[int, int] = {}
        for k, pattern in zip(path.grads_read, path.pattern, strict=True):
            t = self.operand(tensors[k])
            if pattern is None:
                self.emit(guards.has_word, t, guards.GRAD, NONE.word)
                continue
            assert isinstance(pattern, tuple)
            sig, (flag, leaf), first, place = pattern
            g = registers[k] = self.table.new_register()
            self.emit(guards.word, g, t, guards.GRAD)
            self.emit(guards.differs, g, NONE.word)
            history = NONE.word if leaf else guards.HISTORY
            self.emit(guards.is_tensor, g, self.constant(sig), id(flag), history)
            if first != k:
                self.emit(guards.is_object, g, registers[first])
            elif place is not None:
                self.emit(guards.is_object, g, self.operand(tensors[place]))
            else:
                single.append(g)
        if single:
            self.distinct([*single, *map(self.operand, tensors)])

    def distinct(self, operands: list[int]) -> None:
        """Objects of which no two are the same."""
        row = self.registers(len(operands))
        for k, x in enumerate(operands):
            self.emit(guards.copy, row + k, x)
        self.distinct_row(row, len(operands))

    def distinct_row(self, row: int, count: int) -> None:
        size = 1 << (2 * count).bit_length()
        if size > guards.MOST_SEEN:
            raise Unserved
        self.emit(guards.are_distinct, row, count, size)

    def check_memory(self) -> None:
        """What is overwritten is writeable, and lies apart from everything else; other patterns
        are for Python."""
        aliasing = self.path.aliasing
        if aliasing is None:
            return
        if aliasing.pattern:
            raise Unserved
        row = self.arrays(aliasing.sources, 0)
        count = len(aliasing.sources)
        written = [row + k for k in aliasing.written]
        self.emit(guards.are_writeable, len(written), *written)
        blocks = sorted(map(id, memory.BLOCK_TYPES))
        places = aliasing.written
        self.emit(guards.others_apart, row, count, len(blocks), *blocks, len(places), *places)
        self.emit(guards.owners, row, count, len(blocks), *blocks)
        self.distinct_row(row, count)

    # -- the run ------------------------------------------------------------------------------

    def tensor_of(self, source: Source) -> int:
        """The operand of an input, a tensor."""
        if source.kind == "leaf":
            return self.operand(self.found.tensors[source.number])
        if source.kind == "constant":
            return self.constant(self.path.constants[source.number])
        if source.kind == "grad":
            register = self.table.new_register()
            t = self.operand(self.found.tensors[source.number])
            self.emit(guards.word, register, t, guards.GRAD)
            self.emit(guards.is_of, register, id(Tensor))
            return register
        raise Unserved

    def arrays(self, sources: Any, more: int) -> int:
        """A row of registers with the arrays of inputs, and more registers behind."""
        operands = [self.tensor_of(s) for s in sources]
        row = self.registers(len(operands) + more)
        self.emit(calls.arrays, row, len(operands), *operands)
        return row

    def find_plan(self) -> int:
        """The operand of the plan for the sizes of a call."""
        path = self.path
        if path.symbols is None:
            plan = plan_of(path, path.sizes)
            self.kept.append(plan)
            return id(plan.words) + 8 * guards.CONTENTS
        with library.lock:  # native code has the address of the first dict
            path.plan_sizes(plan_of)
        assert path.plans is not None
        where = [self.writer.size_registers[k] for k in path.symbols.numbers]
        register = self.table.new_register()
        self.owned += 1
        pairs = [word for pair in where for word in pair]
        self.emit(calls.find_sizes, register, self.constant(path.plans), len(where), *pairs)
        return register

    def numbers(self) -> int:
        """The first of a row of registers with the program's scalars and the numbers in results."""
        path = self.path
        if path.numbers is None:
            return guards.FIRST
        direct = getattr(path.numbers, "facts", None)
        if direct is not None:
            row = self.registers(len(direct))
            for k, fact in enumerate(direct):
                self.emit(guards.copy, row + k, self.fact(fact))
            return row
        facts = [*path.lifted]
        if path.symbols is not None:
            facts += [k for k in path.symbols.numbers if k not in facts]
        self.hold_call()
        pairs = [word for k in facts for word in (self.constant(k), self.fact(k))]
        count: int = path.numbers.results  # type: ignore[attr-defined]
        row = self.registers(count)
        self.owned += 1
        function = self.constant(path.numbers)
        self.emit(calls.evaluate, row, function, len(facts), *pairs, count)
        return row

    def fact(self, k: int) -> int:
        """The operand of a number of the call."""
        register = self.writer.fact_registers.get(k)
        if register is not None:
            return register
        if k in self.writer.size_registers:
            sizes, part = self.writer.size_registers[k]
            register = self.table.new_register()
            self.emit(guards.word, register, sizes, ITEMS + part)
            return register
        return self.operand(self.found.facts[k])

    def hold_call(self) -> None:
        """Hold what guards have read: Python code runs before the end of the call."""
        self.held.update(self.table.loaded)

    def run(self, plan: int, scalars: int) -> int:
        """Run the program; the first register of its inputs, which outputs stand behind."""
        path = self.path
        counts = ctypes.addressof(path.counts)
        results = len(path.sizes.bound.outputs)
        row = self.arrays(path.sources, results)
        self.emit(calls.start_run, counts)
        self.emit(calls.run, row, scalars, plan, counts)
        aliasing = path.aliasing
        for k, times, line in () if aliasing is None else aliasing.changes:
            t = self.tensor_of(aliasing.sources[k])  # type: ignore[union-attr]
            self.owned += 2
            self.emit(calls.change, t, times, self.constant(line))
        return row

    def single(self, arrays: int, plan: int) -> None:
        """The one new tensor is what the function returns."""
        path = self.path
        if path.outputs[0].changes[0] or len(path.sizes.bound.outputs) != 1:
            raise Unserved
        self.emit(calls.only_tensor, arrays + len(path.sources), plan)
        self.emit(calls.time_run, ctypes.addressof(path.counts))

    # -- what comes after ---------------------------------------------------------------------

    def make_all(self, arrays: int, plan: int, scalars: int) -> None:
        """New tensors, effects, the result; all values before the first assignment."""
        path, row = self.path, arrays + len(self.path.sources)
        results = len(path.sizes.bound.outputs)
        count = min(len(path.outputs), results)
        self.hold_call()
        self.tensors = self.registers(count)
        self.owned += results
        self.emit(calls.tensors, self.tensors, row, count, plan)
        for k in range(count, results):
            self.emit(calls.drop_array, row + k)
        self.shown = self.only_shown()
        for k, output in enumerate(path.outputs[:count]):
            if k in self.shown:
                continue
            if output.requires_grad:
                self.emit(calls.ask_gradient, self.tensors + k)
            if output.freed is not None:
                if self.path.symbols is not None:
                    raise Unserved
                name, types = self.constant(output.freed), self.constant((output.type,))
                self.emit(calls.free_graph, self.tensors + k, name, types)
            times, line = output.changes
            if times:
                self.owned += 2
                self.emit(calls.change, self.tensors + k, times, self.constant(line))
        if path.block is not None:
            self.put_on_tape(row, plan, scalars)
        self.first_number = scalars + path.scalars
        grads = [(self.operand(self.found.tensors[k]), self.value(x)) for k, x in path.grads]
        effects = [(e, self.value(e.value)) for e in path.effects]
        rebound = [(b, self.value(b.value)) for b in path.rebound]
        assigned = [(k, self.value(x)) for k, x in path.assigned]
        result = self.value(path.result)
        for t, value in grads:
            self.owned += 1
            self.emit(calls.set_gradient, t, value)
        for e, value in effects:
            self.effect(e, value)
        for b, value in rebound:
            self.rebind(b, value)
        for k, value in assigned:
            self.assign(Place.of(self.found.fact_parts[k]), value)
        self.emit(calls.give, result)
        self.emit(calls.time_run, ctypes.addressof(path.counts))

    def only_shown(self) -> dict[int, int]:
        """Outputs of which a single second handle is all that is seen, and the identity of what
        makes that: the new tensor serves as the handle, without the first one's history."""
        path = self.path
        if path.block is not None:
            return {}
        made = [path.result, *(x for _, x in (*path.grads, *path.assigned))]
        made += [x.value for x in path.effects] + [x.value for x in path.rebound]
        uses: dict[int, set[int]] = {}
        while made:
            x: Any = made.pop()
            if isinstance(x, New):
                made += x.parts
            elif isinstance(x, Again) and isinstance(x.behind, OfOutput) and x.plain():
                uses.setdefault(x.behind.slot, set()).add(id(x))
            elif isinstance(x, Again):
                made.append(x.behind)
            elif isinstance(x, OfOutput):
                uses.setdefault(x.slot, set()).update((-1, -2))
        outputs = path.outputs
        return {k: min(u) for k, u in uses.items() if len(u) == 1 and not outputs[k].changes[0]}

    def put_on_tape(self, row: int, plan: int, scalars: int) -> None:
        """Let Python record the call; see `Path.put_on_tape`."""
        path, block = self.path, self.path.block
        assert block is not None
        taken = [self.tensor_of(s) for s in block.sources]
        made = range(self.tensors, self.tensors + len(path.outputs))
        outputs = range(row, row + len(path.sizes.bound.outputs))
        numbers = range(scalars, scalars + path.scalars)
        lists = []
        for instruction, items in (
            (calls.make_list, taken),
            (calls.make_list, made),
            (calls.make_list, outputs),
            (calls.make_tuple, numbers),
        ):
            lists.append(self.table.new_register())
            self.owned += 1
            self.emit(instruction, lists[-1], len(items), *items)
        values, nothing = self.table.new_register(), self.table.new_register()
        self.emit(guards.word, values, plan, calls.VALUES)
        self.owned += 1
        function = self.constant(path.record_call)
        self.emit(calls.call_with, nothing, function, 5, *lists, values)

    def value(self, x: Any) -> int:
        """The operand of something that is made from the results of a run."""
        if isinstance(x, OfOutput):
            return self.tensors + x.slot
        if isinstance(x, OfTensor):
            return self.operand(self.found.tensors[x.number])
        if isinstance(x, OfContainer):
            return self.operand(self.found.containers[x.number])
        if isinstance(x, OfNumber):
            return self.first_number + x.number
        if isinstance(x, Constant):
            return self.constant(x.x)
        register = self.table.new_register()
        if isinstance(x, OfGradient):
            self.owned += 1
            t = self.operand(self.found.tensors[x.number])
            self.emit(calls.word_now, register, t, guards.GRAD)
            return register
        if isinstance(x, New):
            return self.new_container(x)
        if isinstance(x, Again) and x.plain():
            if id(x) not in self.made and id(x) in self.shown.values():
                assert isinstance(x.behind, OfOutput)
                self.made[id(x)] = self.tensors + x.behind.slot
                if not x.own:
                    self.emit(calls.show, self.made[id(x)])
            if id(x) not in self.made:
                behind = self.value(x.behind)
                self.made[id(x)] = register
                self.owned += 1
                self.emit(calls.show_again, register, behind, int(x.own))
            return self.made[id(x)]
        raise Unserved

    def new_container(self, x: New) -> int:
        if id(x) in self.made:
            return self.made[id(x)]
        parts = [self.value(p) for p in x.parts]
        register = self.made[id(x)] = self.table.new_register()
        self.owned += 1
        if x.kind is dict:
            words = [w for k, p in zip(x.keys, parts, strict=True) for w in (self.constant(k), p)]
            self.emit(calls.make_dict, register, len(parts), *words)
        else:
            make = calls.make_tuple if x.kind is tuple else calls.make_list
            self.emit(make, register, len(parts), *parts)
        return register

    def effect(self, e: Effect, value: int) -> None:
        """container[key] = value"""
        if type(e) is not Effect:
            raise Unserved
        self.store(self.found.containers[e.container], e.key, value)

    def store(self, container: Any, key: Any, value: int) -> None:
        if type(container) is dict:
            self.emit(calls.set_entry, self.operand(container), self.constant(key), value)
        elif type(container) is list:
            self.emit(calls.set_item, self.operand(container), key, value)
        else:
            raise Unserved

    def rebind(self, b: Rebinding, value: int) -> None:
        owner = self.found.owners[b.owner] if b.how in (CELL_CONTENTS, SLOT) else b.owner
        if b.how == GET:
            self.store(owner, b.key, value)
        elif b.how == CELL_CONTENTS:
            self.emit(calls.set_cell, self.operand(owner), value)
        elif b.how == OWN_ATTRIBUTES or b.how == SLOT:
            self.set_attribute(owner, b.key, value)
        else:
            raise Unserved

    def set_attribute(self, owner: Any, name: str, value: int) -> None:
        """As type.__setattr__ and object.__setattr__ do."""
        if isinstance(owner, type):
            nothing, function = self.table.new_register(), self.constant(_set_attribute)
            self.owned += 1
            words = (self.operand(owner), self.constant(name), value)
            self.emit(calls.call_with, nothing, function, 3, *words)
        else:
            self.emit(calls.set_slot, self.operand(owner), self.constant(name), value)

    def assign(self, place: Place, value: int) -> None:
        """A number that the function changes; see `places.write`."""
        owner, key = place.owner, place.key
        if place.kind == CELL:
            self.emit(calls.set_cell, self.operand(owner), value)
        elif place.kind == ATTRIBUTE:
            attributes = {} if isinstance(owner, type) else getattr(owner, "__dict__", {})
            if key in attributes:
                self.store(attributes, key, value)
            else:
                self.set_attribute(owner, key, value)
        elif place.kind in (ENTRY, GLOBAL):
            self.store(owner, key, value)
        else:
            raise Unserved
