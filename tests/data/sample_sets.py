"""Small data sets on disk for the tests of this folder, and the configs that name them."""

import io
import pathlib
from collections.abc import Callable, Iterable

import ml_collections
import numpy as np
from PIL import Image

from mnet_jax import schema
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.batch import Batch
from mnet_jax.data.dataset import Dataset

Examples = Iterable[tuple[bytes, int]]  # (encoded image, label)


def config(**fields) -> ml_collections.ConfigDict:
    """`config.data` of the default run with some fields changed; 32 px images unless told otherwise."""
    data = schema.get_config().data
    data.image_size = 32
    data.update(fields)
    return data


def picture(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """A smooth random picture, uint8 [height, width, 3], or [height, width] for one channel."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 6) + 1, -(-width // 6) + 1, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return smooth if channels == 3 else smooth[..., 0]


def encode(pixels: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """An image as the bytes of a file of this kind ("JPEG", "PNG", ...), written by Pillow."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_set(
    data_dir: pathlib.Path,
    name: str,
    splits: dict[str, Callable[[], Examples]],
    *,
    num_classes: int = 10,
    file_format: str = "tfrecord",
    num_shards: int = 1,
) -> None:
    """Writes a TFDS set `name` of labelled images under `data_dir`."""
    import tensorflow_datasets as tfds

    def with_names(examples: Callable[[], Examples]) -> Callable[[], Iterable[dict]]:
        return lambda: ({"image": io.BytesIO(image), "label": label} for image, label in examples())

    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=num_classes),
    }
    named = {split: with_names(examples) for split, examples in splits.items()}
    write_features(data_dir, name, features, named, file_format=file_format, num_shards=num_shards)


def write_features(
    data_dir: pathlib.Path,
    name: str,
    features: dict,
    splits: dict[str, Callable[[], Iterable[dict]]],
    *,
    file_format: str = "tfrecord",
    num_shards: int = 1,
) -> None:
    """Writes a TFDS set `name` with these features under `data_dir`."""
    import tensorflow_datasets as tfds

    class Sample(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A sample."""

        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = pathlib.Path(__file__).parent
        code_path = None

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {split: enumerate(examples()) for split, examples in splits.items()}

        def _generate_examples(self):
            raise AssertionError

    Sample.name = name
    tfds.disable_progress_bar()
    download = tfds.download.DownloadConfig(num_shards=num_shards)
    Sample(data_dir=data_dir).download_and_prepare(file_format=file_format, download_config=download)


def objects_feature(names: Iterable[str], *more: str) -> object:
    """The TFDS feature "objects" with classes of these names; `more` of area, is_crowd, is_difficult."""
    import tensorflow_datasets as tfds

    extra = {"area": np.int64, "is_crowd": np.bool_, "is_difficult": np.bool_}
    inside = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=list(names))}
    return tfds.features.Sequence({**inside, **{name: extra[name] for name in more}})


def bbox(y1: float, x1: float, y2: float, x2: float, height: int, width: int) -> object:
    """A TFDS box from pixels of a picture of this size."""
    import tensorflow_datasets as tfds

    return tfds.features.BBox(y1 / height, x1 / width, y2 / height, x2 / width)


def numbered(count: int, first: int = 0) -> Callable[[], Examples]:
    """Examples whose picture, size and label tell which one it is; `first` (a multiple of 10) keeps sets apart."""
    numbers = range(first, first + count)
    return lambda: ((encode(picture(20 + i % 7, 18 + i % 5, seed=i), "JPEG"), i % 10) for i in numbers)


def opened(data: ml_collections.ConfigDict) -> Dataset:
    """The data set with the labels of its images."""
    return Dataset.open(data, {"label": Label()})


def train(data: ml_collections.ConfigDict, batch_size: int, steps: int, **options) -> list[Batch]:
    """The first batches of a training stream; `options` are those of `pipeline.train_batches`."""
    options = {"seed": 0, "start_step": 0} | options
    batches = pipeline.train_batches(opened(data), batch_size=batch_size, **options)
    return [next(batches) for _ in range(steps)]


def in_order(batches: list[Batch]) -> Batch:
    """All examples in the order of their index, without padding."""
    index = joined(batches, "index")
    places = np.argsort(index, kind="stable")[(index < 0).sum() :]
    return {key: joined(batches, key)[places] for key in batches[0]}


def evaluate(data: ml_collections.ConfigDict, batch_size: int, **options) -> list[Batch]:
    """All batches of one evaluation; `options` are those of `pipeline.eval_batches`."""
    return list(pipeline.eval_batches(opened(data), batch_size=batch_size, **options))


def joined(batches: list[Batch], key: str) -> np.ndarray:
    """One array of all batches."""
    return np.concatenate([batch[key] for batch in batches])


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    """Both lists hold the same batches, bit for bit."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
