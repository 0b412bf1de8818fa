"""What libtpu, the TPU compiler and runtime, is told before it starts. No jax here: it comes before jax."""

import importlib.util
import os
import pathlib

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
