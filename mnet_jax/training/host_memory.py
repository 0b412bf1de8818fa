"""The process's own memory where the CPU computes: kept between steps, in huge pages.

XLA asks the C library for a step's temporaries as one block and gives it back at the end of the step. glibc takes such
a block from the kernel each time, which hands it out 4 KiB at a time, zeroed, on first touch: for v3_large at batch 16
that is 230,000 page faults and a third of the step (docs/benchmarks.md). Other allocators need a variable in the
environment before Python starts; these three settings do not.
"""

import ctypes
import os
import pathlib
import sys

# <malloc.h>: parameters of mallopt
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14  # <sys/mman.h>
_HUGE_PAGE = 2 * 2**20
_RESERVE = 8 * 2**30  # bytes of address space at most; a page of it exists once it is used


# What an accelerator shows in /dev: a TPU (two ways), NVIDIA's and AMD's GPUs.
_ACCELERATORS = ("accel0", "vfio/0", "nvidia0", "kfd")


def keep() -> bool:
    """Makes glibc keep the memory it has, and asks for huge pages; True where that worked, False where it cannot.

    The process holds its peak until it ends. Call it before jax starts its threads (a thread that has an arena of its
    own goes on with it). Left as they are: other C libraries, systems other than Linux, and machines with an
    accelerator, unless JAX_PLATFORMS says cpu.
    """
    if not sys.platform.startswith("linux") or not _on_cpu():
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    kept = all(
        libc.mallopt(parameter, value)
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))  # one heap, no mmap, no trim
    )
    return bool(kept) and _advise_huge_pages(libc)


def _on_cpu() -> bool:
    chosen = os.environ.get("JAX_PLATFORMS")
    return chosen == "cpu" if chosen else not any((pathlib.Path("/dev") / name).exists() for name in _ACCELERATORS)


def _advise_huge_pages(libc: ctypes.CDLL) -> bool:
    """Grows the heap by address space that is marked for huge pages, and leaves it to malloc."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.argtypes = (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = min(_RESERVE, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    block = libc.malloc(size)
    if not block:  # a limit on the address space
        return False
    start = -(-block // _HUGE_PAGE) * _HUGE_PAGE
    advised = libc.madvise(start, (block + size - start) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE) == 0
    libc.free(block)
    return advised
