"""Features of a frozen backbone, computed once per image and view, kept on disk, and batches of them.

The backbone does not change and its statistics do not either, so what the classifier sees of a fixed view of an image
never changes: the network runs over each view once, and training is on the classifier alone.
"""

import dataclasses
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator

import jax
import ml_collections
import numpy as np
from etils import epath

from mnet_jax.data import order, views
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models import MobileNet
from mnet_jax.tasks.classification.task import Classification
from mnet_jax.training.layerwise import HEAD
from mnet_jax.training.parallel import Devices
from mnet_jax.training.state import Tree

_IMAGES_AT_ONCE = 64  # views a device and call, at most

# What the features of an image depend on beside the weights and the image itself.
_FIELDS = (
    "seed", "model.name", "model.dtype", "model.padding", "model.stem_stride", "model.norm_epsilon", "data.image_size",
    "data.crop", "data.crop_area", "data.crop_ratio", "data.crop_pad", "data.flip", "data.eval_crop",
    "data.interpolation",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ClassifierOnly:
    """A model whose inputs are features: what `make_train_step` and `make_eval_step` take for a module."""

    model: MobileNet

    def apply(
        self,
        variables: Tree,
        features: jax.Array,
        *,
        train: bool,
        mutable: list[str] | bool = False,
        rngs: dict[str, jax.Array] | None = None,
    ) -> jax.Array | tuple[jax.Array, Tree]:
        """As `model.apply`, from the features on."""
        return self.model.apply(variables, features, train=train, mutable=mutable, rngs=rngs, method="classify")


class Extractor:
    """Features of images under fixed weights, from the file of an earlier run where it has them."""

    def __init__(
        self,
        model: MobileNet,
        task: Classification,
        variables: Tree,
        config: ml_collections.ConfigDict,
        info: DatasetInfo,
        devices: Devices,
        *,
        directory: str | None,
        log: Callable[[str], None],
    ):
        """`directory` (local or gs://): where features are kept; None: nowhere."""
        backbone = {kind: {n: leaf for n, leaf in tree.items() if n != HEAD} for kind, tree in variables.items()}
        self._config, self._info, self._devices, self._log = config, info, devices, log
        self._directory = directory
        self._key = _hash(backbone, {name: config_field(config, name) for name in _FIELDS}, task.mean, task.std)
        self._variables = devices.replicate(jax.tree.map(np.asarray, variables))

        def embed(variables: Tree, images: jax.Array) -> jax.Array:
            return model.apply(variables, task.eval_inputs({"image": images}), train=False, method="embed")

        self._embed = devices.pmap_each(embed)

    def __call__(self, split: str, num_views: int) -> np.ndarray:
        """Features float32 [N, num_views, F] of a split's images, in its order (views: `data/views.py`)."""
        digests, path = views.digests(self._config.data, split), self._file(num_views)
        known = self._read(num_views)
        missing = [i for i, digest in enumerate(digests) if digest not in known]
        if missing:
            start = time.monotonic()
            for i, features in zip(missing, self._compute(split, missing, num_views), strict=True):
                known[digests[i]] = features
            seconds = time.monotonic() - start
            self._log(
                f"Features of {len(missing):,} images ({split}, {self._views(num_views)}) computed in {seconds:.0f} s, "
                f"{len(missing) * num_views / seconds:,.0f} views/s"
            )
            self._write(num_views, known)
        else:
            self._log(f"Features of {len(digests):,} images ({split}, {self._views(num_views)}) read from {path}")
        return np.stack([known[digest] for digest in digests])

    def _compute(self, split: str, indices: list[int], num_views: int) -> Iterator[np.ndarray]:
        devices = len(self._devices.local)
        each = max(1, min(_IMAGES_AT_ONCE // num_views, math.ceil(len(indices) / devices)))
        batches = views.view_batches(
            self._config.data,
            self._info,
            split=split,
            indices=indices,
            num_views=num_views,
            seed=self._config.seed,
            batch_size=each * devices,
        )
        for batch in batches:
            images = batch["image"].reshape(devices, each * num_views, *batch["image"].shape[2:])
            features = np.asarray(self._embed(self._variables, images))
            yield from features.reshape(each * devices, num_views, -1)[batch["mask"] > 0]

    @staticmethod
    def _views(count: int) -> str:
        return "1 view each" if count == 1 else f"{count} views each"

    def _file(self, num_views: int) -> str | None:
        return None if self._directory is None else os.path.join(self._directory, f"{self._key}-{num_views}.npz")

    def _read(self, num_views: int) -> dict[str, np.ndarray]:
        """Features by digest; none where the file is absent or damaged: it is a cache."""
        path = self._file(num_views)
        if path is None or not epath.Path(path).exists():
            return {}
        try:
            with np.load(io.BytesIO(epath.Path(path).read_bytes())) as file:
                return dict(zip(file["digests"].tolist(), file["features"], strict=True))
        except (OSError, ValueError, KeyError) as error:
            self._log(f"{path} is damaged ({type(error).__name__}) and is made anew")
            return {}

    def _write(self, num_views: int, known: dict[str, np.ndarray]) -> None:
        path = self._file(num_views)
        if path is None or self._devices.process_index > 0:
            return
        file = io.BytesIO()
        np.savez(file, digests=np.array(list(known)), features=np.stack(list(known.values())))
        epath.Path(self._directory).mkdir(parents=True, exist_ok=True)
        beside = epath.Path(f"{path}.part")
        beside.write_bytes(file.getvalue())
        beside.replace(path)


class CachedBatches:
    """Batches of features in place of images, in the same order as the images would come."""

    def __init__(self, extract: Extractor, config: ml_collections.ConfigDict, info: DatasetInfo):
        data, self._seed = config.data, config.seed
        self._train = extract(info.train_split, config.train.embedding_views), views.labels(data, info.train_split)
        self._eval = extract(info.eval_split, 1), views.labels(data, info.eval_split)

    def train(
        self, *, batch_size: int, start_step: int, process_index: int, process_count: int
    ) -> Iterator[dict[str, np.ndarray]]:
        """As `ImageBatches.train`, with features float32 [B, F]; the view is a hash of (seed, epoch, index)."""
        features, labels = self._train
        num_views = features.shape[1]
        for index, key in order.train_indices(
            self._seed, len(labels), batch_size, start_step, process_index, process_count
        ):
            view = (order.hash64(key, index) % np.uint64(num_views)).astype(np.int64)
            yield {"features": features[index, view], "label": labels[index], "mask": np.ones(batch_size, np.float32)}

    def evaluation(self, *, batch_size: int, process_index: int, process_count: int) -> Iterator[dict[str, np.ndarray]]:
        """As `ImageBatches.evaluation`, with features float32 [B, F]."""
        features, labels = self._eval
        start, stop = order.share(len(labels), process_index, process_count)
        largest_share = -(-len(labels) // process_count)
        for first in range(start, start + -(-largest_share // batch_size) * batch_size, batch_size):
            index = np.arange(first, first + batch_size)
            mask = index < stop
            index = np.where(mask, index, 0)
            yield {
                "features": features[index, 0],
                "label": labels[index],
                "mask": mask.astype(np.float32),
                "index": np.where(mask, index, -1),
            }


def config_field(config: ml_collections.ConfigDict, path: str) -> object:
    """The value of "section.name"."""
    for name in path.split("."):
        config = config[name]
    return config


def _hash(tree: Tree, *settings: object) -> str:
    """16 hexadecimal digits of arrays with their names, and of settings."""
    digest = hashlib.blake2b(json.dumps(settings, default=list).encode(), digest_size=8)
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(tree), key=lambda item: jax.tree_util.keystr(item[0])):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
