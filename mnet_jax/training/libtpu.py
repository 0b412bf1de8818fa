"""What libtpu, the TPU compiler, is told on a machine without a TPU. No jax here: it comes before jax."""

import os
import pathlib

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
    """Answers what libtpu asks for where it is installed and there is no TPU; call before anything asks for devices.

    Otherwise it looks for the machine's description on a network that has none, and complains on stderr.
    """
    if any(pathlib.Path("/dev").glob("accel[0-9]*")) or any(pathlib.Path("/dev").glob("vfio/[0-9]*")):
        return
    for name, value in _NO_TPU.items():
        os.environ.setdefault(name, value)
