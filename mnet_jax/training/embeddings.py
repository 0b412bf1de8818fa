"""Embeddings of a frozen backbone, computed once per image and view, and kept on disk.

The backbone does not change and its statistics do not either, so what the head sees of a fixed view of an image never
changes: the network runs over each view once, and training is on the head alone.
"""

import dataclasses
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import ml_collections
import numpy as np
from etils import epath

from mnet_jax.config import field
from mnet_jax.data import fixed_views
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import write_whole
from mnet_jax.tasks.task import Task
from mnet_jax.training.parallel import Devices
from mnet_jax.training.state import Tree

_IMAGES_AT_ONCE = 64  # views a device and call, at most

# What the embedding of an image depends on beside the weights and the image itself.
_FIELDS = (
    "seed", "model.name", "model.dtype", "model.padding", "model.stem_stride", "model.norm_epsilon", "data.image_size",
    "data.crop", "data.crop_area", "data.crop_ratio", "data.crop_pad", "data.flip", "data.eval_crop",
    "data.interpolation",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HeadOnly:
    """A network whose inputs are embeddings: what `make_train_step` and `make_eval_step` take for a module."""

    network: nn.Module

    def apply(
        self,
        variables: Tree,
        embeddings: jax.Array,
        *,
        train: bool,
        mutable: list[str] | bool = False,
        rngs: dict[str, jax.Array] | None = None,
    ) -> Tree | tuple[Tree, Tree]:
        """Returns what `network.apply` would, from the embeddings float32 [B, F] on."""
        return self.network.apply(variables, embeddings, train=train, mutable=mutable, rngs=rngs, method="classify")


def check_network(network: nn.Module, task: Task) -> None:
    """Raises ValueError unless the network can go on from an embedding."""
    if not hasattr(network, "classify"):
        raise ValueError(
            f"train.embedding_views: the task {task.name} learns from maps and not from the embedding: "
            "set --config.train.embedding_views=0"
        )


class Extractor:
    """Embeddings of images under fixed weights, from the file of an earlier run where it has them."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        variables: Tree,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        devices: Devices,
        *,
        directory: str | None,
        log: Callable[[str], None],
    ):
        """Makes the step; nothing is computed yet.

        Args:
          network: with the method `embed`.
          task: says how images are prepared.
          variables: of the network, on the host.
          config: of the run; what it says about images is part of the file's name.
          dataset: whose splits are embedded.
          devices: that share the work.
          directory: local or gs://, where embeddings are kept; None: nowhere.
          log: is told what was computed and what was read.
        """
        backbone = {
            kind: {name: leaf for name, leaf in tree.items() if name not in task.own_scopes}
            for kind, tree in variables.items()
        }
        self._config, self._dataset, self._devices, self._log = config, dataset, devices, log
        self._directory = directory
        info = dataset.info
        mean = info.mean if config.data.mean is None else tuple(config.data.mean)
        std = info.std if config.data.std is None else tuple(config.data.std)
        self._key = _hash(backbone, {name: field(config, name) for name in _FIELDS}, mean, std)
        self._variables = devices.replicate(jax.tree.map(np.asarray, variables))

        def embed(variables: Tree, images: jax.Array) -> jax.Array:
            return network.apply(variables, task.eval_inputs({"image": images}), train=False, method="embed")

        self._embed = devices.pmap_each(embed)

    def __call__(self, split: str, num_views: int) -> np.ndarray:
        """Returns embeddings float32 [N, num_views, F] of a split's images, in order (`fixed_views.py`)."""
        digests, path = self._dataset.digests(split), self._file(num_views)
        known = self._read(num_views)
        missing = [i for i, digest in enumerate(digests) if digest not in known]
        if missing:
            start = time.monotonic()
            for i, embedding in zip(missing, self._compute(split, missing, num_views), strict=True):
                known[digests[i]] = embedding
            seconds = time.monotonic() - start
            self._log(
                f"Embeddings of {len(missing):,} images ({split}, {self._views(num_views)}) computed in "
                f"{seconds:.0f} s, "
                f"{len(missing) * num_views / seconds:,.0f} views/s"
            )
            self._write(num_views, known)
        else:
            self._log(f"Embeddings of {len(digests):,} images ({split}, {self._views(num_views)}) read from {path}")
        return np.stack([known[digest] for digest in digests])

    def _compute(self, split: str, indices: list[int], num_views: int) -> Iterator[np.ndarray]:
        devices = len(self._devices.local)
        each = max(1, min(_IMAGES_AT_ONCE // num_views, math.ceil(len(indices) / devices)))
        batches = fixed_views.view_batches(
            self._dataset,
            split=split,
            indices=indices,
            num_views=num_views,
            seed=self._config.seed,
            batch_size=each * devices,
        )
        for batch in batches:
            images = batch["image"].reshape(devices, each * num_views, *batch["image"].shape[2:])
            embeddings = np.asarray(self._embed(self._variables, images))
            yield from embeddings.reshape(each * devices, num_views, -1)[batch["mask"] > 0]

    @staticmethod
    def _views(count: int) -> str:
        return "1 view each" if count == 1 else f"{count} views each"

    def _file(self, num_views: int) -> str | None:
        return None if self._directory is None else os.path.join(self._directory, f"{self._key}-{num_views}.npz")

    def _read(self, num_views: int) -> dict[str, np.ndarray]:
        """Returns embeddings by digest; none where the file is absent or damaged: it is a cache."""
        path = self._file(num_views)
        if path is None or not epath.Path(path).exists():
            return {}
        try:
            with np.load(io.BytesIO(epath.Path(path).read_bytes())) as file:
                return dict(zip(file["digests"].tolist(), file["embeddings"], strict=True))
        except (OSError, ValueError, KeyError) as error:
            self._log(f"{path} is damaged ({type(error).__name__}) and is made anew")
            return {}

    def _write(self, num_views: int, known: dict[str, np.ndarray]) -> None:
        path = self._file(num_views)
        if path is None or self._devices.process_index > 0:
            return
        file = io.BytesIO()
        np.savez(file, digests=np.array(list(known)), embeddings=np.stack(list(known.values())))
        epath.Path(self._directory).mkdir(parents=True, exist_ok=True)
        write_whole(path, file.getvalue())


def _hash(tree: Tree, *settings: object) -> str:
    """Returns 16 hexadecimal digits of arrays with their names, and of settings."""
    digest = hashlib.blake2b(json.dumps(settings, default=list).encode(), digest_size=8)
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(tree), key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
