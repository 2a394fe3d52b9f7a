"""The order of groups: which kernel of a program runs when."""

from __future__ import annotations

import heapq

from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.passes.fuse import Group, producers


def schedule(groups: list[Group], written: set[Node]) -> list[Group]:
    """Groups in dependency order: those that check first, those that overwrite inputs last."""
    number = {n: k for k, g in enumerate(groups) for n in g.nodes}
    needs: list[set[int]] = [
        {number[p] for n in g.nodes for p, _, _ in producers(n) if p in number} - {k}
        for k, g in enumerate(groups)
    ]
    users: list[list[int]] = [[] for _ in groups]
    for k, before in enumerate(needs):
        for b in before:
            users[b].append(k)

    late = [any(n in written for n in g.nodes) for g in groups]
    depth = [0] * len(groups)  # how many late groups come before, one after another

    def rank(k: int) -> tuple[int, ...]:
        if groups[k].has_checks or not late[k]:
            return 0 if groups[k].has_checks else 1, k
        # those of one depth do not need each other: side by side they become a round
        return 2, depth[k], not groups[k].domain, k

    ready = [rank(k) for k, before in enumerate(needs) if not before]
    heapq.heapify(ready)
    out = []
    while ready:
        k = heapq.heappop(ready)[-1]
        out.append(groups[k])
        for user in users[k]:
            depth[user] = max(depth[user], depth[k] + late[k])
            needs[user].discard(k)
            if not needs[user]:
                heapq.heappush(ready, rank(user))
    return out
