"""Loops on the thread pool that count what runs, for tests."""

from __future__ import annotations

import ctypes

import numpy as np

from dualgrad.runtime.config import config
from dualgrad.runtime.linker import host_object, link_library
from dualgrad.runtime.threads import pool

# context: [0] counts, [1] tids (-1 before), [2] steps that the slowest chunk idles, less 1,
# [3] pool, [4] parallel_for, [5] inner context, [6] inner chunks
BODIES = """
define void @count(ptr %ctx, i64 %chunk, i64 %tid) {
entry:
  %counts = load ptr, ptr %ctx
  %tids.p = getelementptr i64, ptr %ctx, i64 1
  %tids = load ptr, ptr %tids.p
  %mask.p = getelementptr i64, ptr %ctx, i64 2
  %mask = load i64, ptr %mask.p
  %mixed = mul i64 %chunk, 11400714819323198485
  %high = lshr i64 %mixed, 40
  %steps = and i64 %high, %mask
  br label %idle
idle:
  %i = phi i64 [0, %entry], [%next, %idle]
  %next = add i64 %i, 1
  call void asm sideeffect "", ""()
  %more = icmp sle i64 %next, %steps
  br i1 %more, label %idle, label %done
done:
  %count.p = getelementptr i64, ptr %counts, i64 %chunk
  %old = atomicrmw add ptr %count.p, i64 1 monotonic
  %tid.p = getelementptr i64, ptr %tids, i64 %chunk
  store i64 %tid, ptr %tid.p
  ret void
}

define void @nested(ptr %ctx, i64 %chunk, i64 %tid) {
  %pool.p = getelementptr i64, ptr %ctx, i64 3
  %pool = load ptr, ptr %pool.p
  %for.p = getelementptr i64, ptr %ctx, i64 4
  %for = load ptr, ptr %for.p
  %inner.p = getelementptr i64, ptr %ctx, i64 5
  %inner = load ptr, ptr %inner.p
  %n.p = getelementptr i64, ptr %ctx, i64 6
  %n = load i64, ptr %n.p
  call void %for(ptr %pool, ptr @count, ptr %inner, i64 %n)
  call void @count(ptr %ctx, i64 %chunk, i64 %tid)
  ret void
}

define void @storm(ptr %pool, ptr %for, ptr %ctx, i64 %n, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  call void %for(ptr %pool, ptr @count, ptr %ctx, i64 %n)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""


def compiled(name, text, symbols):
    with config.scope(cache=False):
        return link_library(name, host_object(name, text), symbols)


class Job:
    """Counters for up to `n` chunks, and their context."""

    def __init__(self, n, steps=1, inner=None, inner_n=0):
        self.counts = np.zeros(n, np.int64)
        self.tids = np.full(n, -1, np.int64)
        inner_context = inner.context.ctypes.data if inner else 0
        self.context = np.array(
            [
                self.counts.ctypes.data,
                self.tids.ctypes.data,
                steps - 1,
                pool().address,
                pool().parallel_for_address,
                inner_context,
                inner_n,
            ],
            np.int64,
        )

    def run(self, body, n):
        words = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
        function = ctypes.CFUNCTYPE(None, *words)(pool().parallel_for_address)
        function(pool().address, body, self.context.ctypes.data, n)
        return self
