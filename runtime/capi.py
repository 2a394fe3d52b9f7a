"""Native code that other libraries call by its address, as LLVM IR text.

    release, release_versioned   deleters of DLPack's structs; their `manager_ctx` is a Python
                                 object that keeps struct and memory, with one reference for them
    discard, discard_versioned   destructors of capsules: a struct that nobody took is released
    get_buffer                   the slot of the buffer protocol: asks `__buffer__` of the object

They are no callbacks of ctypes for two reasons.  A capsule may die while an exception is on its
way, which Python code would lose, and a struct after the interpreter has ended.

Sources: DLPack 1.1 (dlpack.h), "Capsule Objects" and "Buffer Objects" of Python's C API.
"""

from __future__ import annotations

import functools

from dualgrad.runtime.linker import has_host_object, host_object, link_library

SYMBOLS = ("release", "release_versioned", "discard", "discard_versioned", "get_buffer")

_TEXT = """\
%tensor = type { ptr, { i32, i32 }, i32, { i8, i8, i16 }, ptr, ptr, i64 }
%managed = type { %tensor, ptr, ptr }
%versioned = type { { i32, i32 }, ptr, ptr, i64, %tensor }

@plain_name = constant [9 x i8] c"dltensor\\00"
@versioned_name = constant [19 x i8] c"dltensor_versioned\\00"
@method = constant [11 x i8] c"__buffer__\\00"
@format = constant [2 x i8] c"i\\00"

declare i32 @Py_IsInitialized()
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare void @Py_DecRef(ptr)
declare i32 @PyCapsule_IsValid(ptr, ptr)
declare ptr @PyCapsule_GetPointer(ptr, ptr)
declare ptr @PyObject_CallMethod(ptr, ptr, ptr, ...)
declare i32 @PyObject_GetBuffer(ptr, ptr, i32)

define void @drop(ptr %place) {
  %up = call i32 @Py_IsInitialized()
  %alive = icmp ne i32 %up, 0
  br i1 %alive, label %run, label %exit
run:
  %lock = call i32 @PyGILState_Ensure()
  %object = load ptr, ptr %place
  call void @Py_DecRef(ptr %object)
  call void @PyGILState_Release(i32 %lock)
  br label %exit
exit:
  ret void
}

define void @release(ptr %self) {
  %place = getelementptr %managed, ptr %self, i32 0, i32 1
  call void @drop(ptr %place)
  ret void
}

define void @release_versioned(ptr %self) {
  %place = getelementptr %versioned, ptr %self, i32 0, i32 1
  call void @drop(ptr %place)
  ret void
}

define void @discard(ptr %capsule) {
  %valid = call i32 @PyCapsule_IsValid(ptr %capsule, ptr @plain_name)
  %unused = icmp ne i32 %valid, 0
  br i1 %unused, label %free, label %exit
free:
  %self = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr @plain_name)
  call void @release(ptr %self)
  br label %exit
exit:
  ret void
}

define void @discard_versioned(ptr %capsule) {
  %valid = call i32 @PyCapsule_IsValid(ptr %capsule, ptr @versioned_name)
  %unused = icmp ne i32 %valid, 0
  br i1 %unused, label %free, label %exit
free:
  %self = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr @versioned_name)
  call void @release_versioned(ptr %self)
  br label %exit
exit:
  ret void
}

define i32 @get_buffer(ptr %self, ptr %view, i32 %flags) {
  %found = call ptr (ptr, ptr, ptr, ...) @PyObject_CallMethod(
      ptr %self, ptr @method, ptr @format, i32 %flags)
  %failed = icmp eq ptr %found, null
  br i1 %failed, label %error, label %fill
error:
  %owner = getelementptr { ptr, ptr }, ptr %view, i32 0, i32 1
  store ptr null, ptr %owner
  ret i32 -1
fill:
  %result = call i32 @PyObject_GetBuffer(ptr %found, ptr %view, i32 %flags)
  call void @Py_DecRef(ptr %found)
  ret i32 %result
}
"""


@functools.cache
def addresses() -> dict[str, int]:
    """The address of each of `SYMBOLS`.  The first call links them, and compiles them where the
    disk cache does not have them."""
    return link_library("capi", host_object("capi", _TEXT), SYMBOLS)


def is_compiled() -> bool:
    """Whether `addresses` finds the code in the disk cache."""
    return has_host_object("capi", _TEXT)
