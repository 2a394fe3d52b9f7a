"""Lanes of a reduction as one value, by halves: lane l with lane l + n/2, then l + n/4, ...

Lane l = t * share + k is value k of thread t, so the upper bits of l are those of the thread.  A
step combines the two values of which the lanes differ in the highest bit that is left.  Both
threads of a pair end up with the same, so they need not both go on with all of their values: one
takes the lower half, one the upper.  That moves the highest bit of k into the bit of the thread
that has just been freed, and only one value per thread is exchanged in most steps.  After the
last step every thread has the total.
"""

from __future__ import annotations

from collections.abc import Iterator

from dualgrad.compiler.kernel.ir import Accumulator
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.cuda.ctype import register_type
from dualgrad.compiler.lower.cuda.kernel import KernelCode, Signature
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.teams import WARP, Team

_SYMMETRIC = {"add", "mul", "and", "or", "xor"}
_SHUFFLED = {"int", "unsigned int", "long long", "unsigned long long", "float", "double"}
Values = list[list[str]]  # of each carry: the values that a thread has of it


class CombineCode(KernelCode):
    """Writes one kernel: values that go from thread to thread.

    In the text `t` is the number of a thread in its team.
    """

    def __init__(self, signature: Signature, formulas: Formulas, team: Team) -> None:
        super().__init__(signature, formulas)
        self.team = team

    # -- from thread to thread ----------------------------------------------------------------

    @property
    def mask(self) -> str:
        """The lanes of the warp that a narrow team consists of."""
        return "team" if self.team.threads < WARP else "0xffffffffu"

    def exchanged(self, kinds: list[str], values: list[str], distance: int) -> list[str]:
        """The values that the thread with number t ^ distance has."""
        if distance < WARP:
            return [self.shuffled(k, v, distance) for k, v in zip(kinds, values, strict=True)]
        places = [self.w.new_name("s") for _ in values]
        for place, kind, value in zip(places, kinds, values, strict=True):
            self.w.line(f"__shared__ {kind} {place}[{self.team.threads}];")
            self.w.line(f"{place}[t] = {value};")
        self.w.line("__syncthreads();")
        return [
            self.w.value(kind, f"{place}[t ^ {distance}]")
            for place, kind in zip(places, kinds, strict=True)
        ]

    def shuffled(self, kind: str, value: str, distance: int) -> str:
        if kind in _SHUFFLED:
            return self.w.value(kind, f"__shfl_xor_sync({self.mask}, {value}, {distance})")
        whole = f"__shfl_xor_sync({self.mask}, (int){value}, {distance})"
        return self.w.value(kind, f"{whole} != 0" if kind == "bool" else f"({kind}){whole}")

    def distances(self) -> Iterator[int]:
        """The bits of a thread's number, highest first."""
        distance = self.team.threads // 2
        while distance:
            yield distance
            distance //= 2

    def vote(self, flag: str) -> str:
        """Whether a condition (int) holds in some thread of the team."""
        for distance in self.distances():
            (other,) = self.exchanged(["int"], [flag], distance)
            flag = self.w.value("int", f"{flag} | {other}")
        return flag

    # -- the tree -----------------------------------------------------------------------------

    def combined(self, a: Accumulator, values: Values) -> list[str]:
        """The totals of an accumulator; `values` are the lanes of this thread."""
        bits: list[int] = list(self.distances())  # of lane numbers: which threads differ in them
        count = len(values[0])
        while count > 1 or bits:
            if not bits:  # both values are here
                count //= 2
                values = self.paired(a, [x[:count] for x in values], [x[count:] for x in values])
                continue
            distance = bits.pop(0)
            if count > 1:
                count //= 2
                bits.append(distance)
            values = self.met(a, values, distance)
        return [x[0] for x in values]

    def met(self, a: Accumulator, values: Values, distance: int) -> Values:
        """The values combined with those of another thread, half of them if there are several."""
        kinds = [register_type(x.dtype) for x in a.carry]
        upper = f"(t & {distance})"
        own = values
        if len(values[0]) > 1:
            half = len(values[0]) // 2
            low, high = [x[:half] for x in values], [x[half:] for x in values]
            own = self.chosen(kinds, upper, high, low)
            values = self.chosen(kinds, upper, low, high)
        count = len(own[0])
        columns = [self.exchanged(kinds, [x[k] for x in values], distance) for k in range(count)]
        other = [[column[j] for column in columns] for j in range(len(kinds))]
        if is_symmetric(a):
            return self.paired(a, own, other)
        left = self.chosen(kinds, upper, other, own)
        right = self.chosen(kinds, upper, own, other)
        return self.paired(a, left, right)

    def chosen(self, kinds: list[str], condition: str, yes: Values, no: Values) -> Values:
        return [
            [self.w.value(kind, f"{condition} ? {y} : {n}") for y, n in zip(ys, ns, strict=True)]
            for kind, ys, ns in zip(kinds, yes, no, strict=True)
        ]

    def paired(self, a: Accumulator, left: Values, right: Values) -> Values:
        """Each value of `left` with its partner in `right`."""
        out: Values = [[] for _ in a.carry]
        for k in range(len(left[0])):
            with self.scope():
                for sides, names in ((a.left, left), (a.right, right)):
                    for register, values in zip(sides, names, strict=True):
                        self.keep(register, values[k])
                for results, x in zip(out, a.combine, strict=True):
                    results.append(self.value(x))
        return out


def is_symmetric(a: Accumulator) -> bool:
    """Whether combining two values gives the same in either order."""
    return all(
        _swaps(x, left, right) for x, left, right in zip(a.combine, a.left, a.right, strict=True)
    )


def _swaps(x: Scalar, left: Scalar, right: Scalar) -> bool:
    return x.op in _SYMMETRIC and set(x.args) == {left, right}
