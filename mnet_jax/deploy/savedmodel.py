"""A graph as a TensorFlow SavedModel: the signature serving_default, any batch; TF Serving and tfjs read it."""

import os

import numpy as np

from mnet_jax.deploy import graph as g
from mnet_jax.deploy import sums
from mnet_jax.deploy.metadata import JSON_FILE, LABELS_FILE, About, from_json
from mnet_jax.files import placed

SIGNATURE = "serving_default"
MODEL_FILE = "saved_model.pb"
# Where a SavedModel keeps files that no operation reads; tools copy it along.
EXTRA = "assets.extra"


def write(graph: g.Graph, about: About, path: str | os.PathLike) -> None:
    """Writes the directory; it replaces another SavedModel, and nothing else."""
    import tensorflow as tf

    from mnet_jax.deploy.tensorflow_module import make_function

    with placed(path, inside=MODEL_FILE) as part:
        module = tf.Module()
        module.run = make_function(graph, None)
        tf.saved_model.save(module, str(part), signatures={SIGNATURE: module.run})
        extra = part / EXTRA
        extra.mkdir()
        (extra / JSON_FILE).write_text(about.to_json(), encoding="utf-8")
        (extra / LABELS_FILE).write_text(about.labels(), encoding="utf-8")
        sums.seal_directory(part, EXTRA)


class Runner:
    """A SavedModel in TensorFlow: images [N, H, W, 3] -> its results."""

    def __init__(self, path: str | os.PathLike):
        import tensorflow as tf

        with open(os.path.join(path, EXTRA, JSON_FILE), encoding="utf-8") as file:
            self.about = from_json(file.read())
        self._model = tf.saved_model.load(os.fspath(path))
        self._signature = self._model.signatures[SIGNATURE]

    def __call__(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        found = self._signature(**{g.INPUT: images})
        return g.results({name: values.numpy() for name, values in found.items()})
