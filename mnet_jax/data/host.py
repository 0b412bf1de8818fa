"""TensorFlow as this project uses it: on the host's processor cores only, and quiet."""

import os
from collections.abc import Callable

# Before the import: TensorFlow prints its build flags and processor features at levels below 3.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # images only; its start-up message ignores the log level

import tensorflow as tf

# The accelerators belong to JAX: TensorFlow would otherwise take most of a GPU's memory, or claim the TPU.
for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)


def graph_function(function: Callable) -> Callable:
    """A function of tensors for a data set, whose Python source tensorflow need not rewrite: half the start-up time."""
    return tf.autograph.experimental.do_not_convert(function)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
