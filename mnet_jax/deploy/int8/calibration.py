"""The images on which an int8 network's ranges are observed."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mnet_jax.files import tell

if TYPE_CHECKING:
    from mnet_jax.trained import Trained

NUM_IMAGES = 256  # as many as are used, unless asked for more; see docs/quantization.md for what fewer cost
LEAST = 16  # fewer than these say too little of what an activation reaches
_BATCH = 16


def batches(
    trained: "Trained", image_size: tuple[int, int], *, folder: str | os.PathLike | None = None, num: int = NUM_IMAGES
) -> Iterator[np.ndarray]:
    """Returns batches uint8 [n, H, W, 3], cropped as for evaluation: `num` training images, or those of a folder.

    Training images are spread over the whole split, and so are those of a folder, all of it below `folder`.

    Raises:
      ValueError: in one line, at the call, if there is no such data set or folder, or it has too few images.
    """
    if num < LEAST:
        raise ValueError(f"{num} images are too few to calibrate on: give at least {LEAST}")
    return _of_folder(trained, image_size, folder, num) if folder else _of_training(trained, image_size, num)


def _of_folder(
    trained: "Trained", image_size: tuple[int, int], folder: str | os.PathLike, num: int
) -> Iterator[np.ndarray]:
    from mnet_jax.data import decode, formats

    root = os.path.expanduser(folder)
    if not os.path.isdir(root):
        raise ValueError(f"there is no directory {folder} with images to calibrate on")
    files, _ = formats.images_below(root)
    files = [files[index] for index in _spread(len(files), num)]
    verdicts = formats.judge(files, sizes=False)
    bad = [f"{path} ({one.fault})" for path, one in zip(files, verdicts, strict=True) if one.fault]
    files = [path for path, one in zip(files, verdicts, strict=True) if not one.fault]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    if len(files) < LEAST:
        without = f" that can be read, without {', '.join(bad[:3])}{more}" if bad else ""
        raise ValueError(f"{folder} has {len(files)} images{without}: to calibrate on, give at least {LEAST}")
    if bad:
        tell(f"{folder}: left out {len(bad)} files: {', '.join(bad[:3])}{more}")
    data = trained.config.data

    def read() -> Iterator[np.ndarray]:
        for start in range(0, len(files), _BATCH):
            images = (decode.load_image(file) for file in files[start : start + _BATCH])
            yield np.stack(
                [decode.eval_crop(image, image_size, data.eval_crop, data.interpolation)[0] for image in images]
            )

    return read()


def _of_training(trained: "Trained", image_size: tuple[int, int], num: int) -> Iterator[np.ndarray]:
    from mnet_jax.config import set_field
    from mnet_jax.data import pipeline
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.trained import annotations

    config = trained.config.copy_and_resolve_references()
    set_field(config, "data.image_size", tuple(image_size))
    try:
        dataset = Dataset.open(config.data, annotations(config))
    except ValueError as error:
        # Published weights were trained by somebody else: a set that is not here is nobody's mistake.
        why = "published weights come without images" if trained.published else str(error)
        raise ValueError(
            f"to calibrate, give --calibration FOLDER with some {num} images like those of training ({why})"
        ) from error
    info = dataset.info
    if info.num_train < LEAST:
        raise ValueError(
            f"{info.name} has {info.num_train} training images: at least {LEAST} are needed to calibrate on"
        )
    # Of a large set those at its beginning, which TFDS has shuffled.
    wanted = set(_spread(min(info.num_train, 16 * num), num))

    def read() -> Iterator[np.ndarray]:
        place, kept = 0, []
        for batch in pipeline.eval_batches(dataset, batch_size=_BATCH, split=info.train_split):
            real = int(batch["mask"].sum())
            kept += [batch["image"][i] for i in range(real) if place + i in wanted]
            place += real
            while len(kept) >= _BATCH:
                yield np.stack(kept[:_BATCH])
                del kept[:_BATCH]
            if place > max(wanted):
                break
        if kept:
            yield np.stack(kept)

    return read()


def _spread(there: int, wanted: int) -> list[int]:
    """Returns `wanted` places of `there`, evenly apart."""
    return sorted({int(place) for place in np.linspace(0, there - 1, min(wanted, there))})
