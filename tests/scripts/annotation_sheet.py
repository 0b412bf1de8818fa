"""Draws a sheet of training images with their annotations, to look at: boxes must lie around what they were drawn for.

python tests/scripts/annotation_sheet.py sheet.png --folder /data/bccd --crop ssd
python tests/scripts/annotation_sheet.py sheet.png --data coco/2017 --data-dir /data/tfds --crop ssd --image 320
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from mnet_jax import schema
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.dataset import Dataset


def main() -> None:
    """Writes the picture: the first image of each row as in evaluation, the others as training has them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--folder")
    parser.add_argument("--data", default="folder")
    parser.add_argument("--data-dir")
    parser.add_argument("--crop", default="ssd")
    parser.add_argument("--zoom-out", type=float, default=0.5)
    parser.add_argument("--image", type=int, default=256)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=7)
    args = parser.parse_args()
    data = schema.get_config().data
    data.name, data.folder, data.data_dir = args.data, args.folder, args.data_dir
    data.update(image_size=args.image, crop=args.crop, crop_zoom_out=args.zoom_out, eval_crop=1.0)
    kind = Boxes()
    dataset = Dataset.open(data, {"boxes": kind})
    parts = ("", "_class", "_ignore")

    def drawn(batch: dict, row: int) -> np.ndarray:
        found = {part[1:]: batch[f"boxes{part}"][row] for part in parts}
        return np.pad(kind.draw(batch["image"][row], found, ()), [(0, 4), (0, 4), (0, 0)], constant_values=255)

    whole = next(pipeline.eval_batches(dataset, batch_size=args.rows, split=dataset.info.train_split))
    table = [[drawn(whole, row)] for row in range(args.rows)]
    # crops are a function of (seed, epoch, index): epochs are walked until each row has all of its columns
    for batch in pipeline.train_batches(dataset, batch_size=16, seed=0, start_step=0):
        for row in np.flatnonzero(batch["index"] < args.rows):
            if len(table[batch["index"][row]]) < args.columns:
                table[batch["index"][row]].append(drawn(batch, row))
        if all(len(images) == args.columns for images in table):
            break
    Image.fromarray(np.concatenate([np.concatenate(images, 1) for images in table])).save(args.out)
    print(f"{args.out}: {args.rows} images, {args.columns - 1} training crops each")


if __name__ == "__main__":
    main()
