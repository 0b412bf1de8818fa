"""TensorFlow as this project uses it: on the host's processor cores only, and quiet."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator

# Before the import: TensorFlow prints its build flags and processor features at levels below 3.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # images only; its start-up message ignores the log level


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keeps TensorFlow from importing Keras as it starts, a third of its start; `tensorflow.keras` works all the same.

    TensorFlow loads Keras' optimisers for SavedModels that have one, and goes on if there is no Keras. What it adds to
    its path for `import tensorflow.keras` is added here.
    """
    if {"keras", "tensorflow"} & sys.modules.keys():
        yield
        return
    sys.modules["keras"] = None
    try:
        yield
    finally:
        del sys.modules["keras"]
    path = sys.modules["tensorflow"].__path__
    found = importlib.util.find_spec("keras")
    path[:] = [entry for entry in path if entry is not None]
    if found is not None and found.origin:
        path[:0] = [os.path.join(os.path.dirname(found.origin), *parts) for parts in (("api", "_v2"), ("_tf_keras",))]


with _without_keras():
    import tensorflow as tf

# The accelerators belong to JAX: TensorFlow would otherwise take most of a GPU's memory, or claim the TPU.
for _kind in ("GPU", "TPU"):
    tf.config.set_visible_devices([], _kind)


def graph_function(function: Callable) -> Callable:
    """Returns a function of tensors whose Python source tensorflow need not rewrite: half the start-up time."""
    return tf.autograph.experimental.do_not_convert(function)


def in_parallel(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Returns `dataset.map`, on all cores, in order."""
    return dataset.map(graph_function(function), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
