"""What has to be settled before jax starts: libtpu, the process's memory, quiet libraries, compiled programs, SIGTERM.

Imports neither jax nor tensorflow as it is imported.

The memory: XLA asks the C library for a step's temporaries as one block and gives it back at the end of the step. glibc
takes such a block from the kernel each time, which hands it out 4 KiB at a time, zeroed, on first touch: for v3_large
at batch 16 that is 230,000 page faults and a third of the step (docs/benchmarks.md). Other allocators need a variable
in the environment before Python starts; these settings do not.
"""

import ctypes
import importlib.util
import itertools
import os
import pathlib
import signal
import sys
import threading
import types
from collections.abc import Callable

# KiB of the core's own memory that one operation may use: 16 MiB is the compiler's own choice on v5e. v3_large's step
# there needs 3 % fewer estimated cycles with 28; with 32 and more the gain is lost again (docs/tpu.md). v4 ignores it.
VMEM_LIMIT = "xla_tpu_scoped_vmem_limit_kib"
VMEM_LIMIT_KIB = 28 * 1024

# A type that exists keeps libtpu quiet; a described slice (`describe_tpu`) does not depend on it.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two compilations at a time
}

# <malloc.h>: parameters of mallopt
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_HEAP = 64 * 2**20  # size of the heap of a thread of its own; half of it is the largest _MMAP_THRESHOLD
_MADV_HUGEPAGE = 14  # <sys/mman.h>
_HUGE_PAGE = 2 * 2**20
_RESERVE = 8 * 2**30  # bytes of address space at most; a page of it exists once it is used
# What an accelerator shows in /dev: a TPU (two ways), NVIDIA's and AMD's GPUs.
_ACCELERATORS = ("accel0", "vfio/0", "nvidia0", "kfd")

STOPPED = 75  # exit code of a process that was asked to stop before its work was done (EX_TEMPFAIL of sysexits.h)

# Before anything imports them: TensorFlow, absl and JAX tell of processor features and missing accelerators otherwise.
_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


def quiet_libraries() -> None:
    """Sets the variables that keep TensorFlow from talking as it starts; what the user has set stays."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def cache_compilations() -> None:
    """Keeps compiled programs in ~/.cache/mnet_jax/compiled (or JAX_COMPILATION_CACHE_DIR) for the next start."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "mnet_jax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _keep_in_every_process()


def _keep_in_every_process() -> None:
    """Lets each process of a run write its programs; jax has the first one alone do so, whose disk others lack."""
    from jax._src import compiler

    first = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0))
    write = getattr(compiler, "_cache_write", None)
    if write is not None:
        compiler._cache_write = types.FunctionType(write.__code__, {**vars(compiler), "distributed": first})


def num_cores() -> int:
    """Returns how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def settle_libtpu() -> None:
    """Sets the compiler's options, and answers what libtpu asks for where it is installed and there is no TPU.

    Otherwise it looks for the machine's description on a network that has none, and complains on stderr; and jax, which
    tries it first where it may, keeps its profiler, which then crashes (jax 0.10.2, libtpu 0.0.52): where there is no
    GPU either, jax is told to be content with the CPU. What the user has set stays. Call it before jax is imported, or
    at least before anything asks for devices.
    """
    options = os.environ.get("LIBTPU_INIT_ARGS", "")
    if VMEM_LIMIT not in options:
        os.environ["LIBTPU_INIT_ARGS"] = f"{options} --{VMEM_LIMIT}={VMEM_LIMIT_KIB}".strip()
    if _has_device("accel[0-9]*", "vfio/[0-9]*"):
        return
    for name, value in _NO_TPU.items():
        os.environ.setdefault(name, value)
    if importlib.util.find_spec("libtpu") and not _has_device("nvidia[0-9]*", "kfd", "dxg"):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def _has_device(*patterns: str) -> bool:
    return any(any(pathlib.Path("/dev").glob(pattern)) for pattern in patterns)


def keep_memory() -> bool:
    """Makes glibc keep the memory it has; True where that worked, False where the C library is another.

    Where the processor trains, all of it, with huge pages: the process holds its peak until it ends. Beside an
    accelerator the heaps of threads, of which the input path otherwise loses a third of its speed to pages that come
    and go with every photo (`mnet benchmark input`). JAX_PLATFORMS=cpu says that the processor trains all the same.

    Call it before anything starts threads: one that has a heap of its own goes on with it.
    """
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if not hasattr(libc, "mallopt") or not hasattr(libc, "gnu_get_libc_version"):
        return False
    # One heap, no mmap, no trim; or heaps that grow as a whole and are not returned.
    alone = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    beside = ((_TOP_PAD, _HEAP), (_MMAP_THRESHOLD, _HEAP // 2), (_TRIM_THRESHOLD, 2 * _HEAP))
    on_cpu = _on_cpu()
    kept = all(libc.mallopt(parameter, value) for parameter, value in (alone if on_cpu else beside))
    return kept and (not on_cpu or _advise_huge_pages(libc))


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


class StopSignal:
    """SIGTERM, as a scheduler sends it some seconds before it takes a machine away.

    Where nothing would be lost the process leaves at once, in whatever library it is (a compiler may not come back for
    minutes); otherwise `asked` says it, and whoever has something to save leaves once that is done. A second signal
    ends the process at once. The exit code is `STOPPED` each time.
    """

    def __init__(self) -> None:
        """Changes nothing yet: enter it in the main thread."""
        self.asked = False  # to stop
        self.stopped = False  # the work was ended for it, unfinished
        self.on_leave: Callable[[str], object] | None = None  # told why, before the process leaves
        self._unsaved = False
        self._lock = threading.RLock()
        self._inside = False
        self._counted = 0  # signals that were answered

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            # Python's handler runs between two of its own instructions only. The system's part writes to the pipe at
            # once, and the thread answers where a library has let go of Python, as compilers do.
            handled = itertools.count(1)
            self._previous = signal.signal(signal.SIGTERM, lambda *unused: self._answer(next(handled)))
            self._previous_pipe = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(read,), name="stop signal", daemon=True).start()
            self._inside = True
        return self

    def __exit__(self, *unused: object) -> None:
        if self._inside:
            signal.set_wakeup_fd(self._previous_pipe)
            signal.signal(signal.SIGTERM, self._previous)
            os.close(self._write)
            self._inside = False

    def hold(self) -> None:
        """From here on there is something to save."""
        self._unsaved = True

    def release(self) -> None:
        """Everything is saved: the process may be ended at any time."""
        with self._lock:
            self._unsaved = False
            if self.asked and not self.stopped:
                self._leave("everything is saved")

    def _watch(self, read: int) -> None:
        received = itertools.count(1)
        while number := os.read(read, 1):
            if number[0] == signal.SIGTERM:
                self._answer(next(received))
        os.close(read)

    def _answer(self, number: int) -> None:
        """Answers the signal of this number, once."""
        with self._lock:
            if number <= self._counted:
                return
            self._counted = number
            if self.asked:
                self._leave("asked twice; what was not saved is lost")
            self.asked = True
            if not self._unsaved:
                self._leave("there is nothing to save")

    def _leave(self, why: str) -> None:
        os.write(2, f"Asked to stop: {why}. The same command goes on from the last checkpoint.\n".encode())
        if self.on_leave is not None:
            self.on_leave(f"it was asked to stop; {why}")
        os._exit(STOPPED)
