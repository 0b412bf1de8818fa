"""Sheets of real photos as training sees them, with their boxes or masks drawn: to look at.

    python tests/scripts/annotation_sheets.py --photos DIR --out DIR

`--photos` is where the sample data's prepare.py has put coco_tiny, bccd and camvid. Writes coco_boxes.png,
cells_boxes.png, coco_masks.png and street_masks.png. A row is a photo. Its columns: all of it, as in evaluation; two
random crops, mirrored or not; moved by `data.crop` "pad"; and, with boxes, three crops of SSD, zoomed out or not. A
frame has the colour of its class, or is white for a crowd; half of a mask's colour is the photo's.
"""

import argparse
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "data"))

import tensorflow_datasets as tfds
from sample_sets import config, objects_feature, write_features
from test_data_real_annotations import CELLS, cells

from mnet_jax.data import croppers
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.decode import Decoder
from mnet_jax.data.pixel_map import PixelMap
from mnet_jax.data.tensorflow_setup import tf

SIZE = (208, 256)
TITLES = ("evaluation", "inception", "inception", "pad", "ssd", "ssd", "ssd")


def decoders(boxes: bool) -> list[Decoder]:
    """One a column."""
    data = config(crop_area=(0.2, 1.0), crop_pad=24, eval_crop=1.0)
    inception = Decoder(croppers.train_cropper(data, SIZE), "bilinear", flip=True)
    data.crop = "pad"
    moved = Decoder(croppers.train_cropper(data, SIZE), "bilinear", flip=True)
    data.crop = "ssd" if boxes else "pad"  # which looks at the boxes
    ssd = Decoder(croppers.train_cropper(data, SIZE), "bilinear", flip=True)
    return [Decoder(croppers.eval_cropper(data, SIZE), "bilinear"), inception, inception, moved, ssd, ssd, ssd]


def sheet(dataset: Dataset, split: str, places: list[int]) -> Image.Image:
    """Rows of photos, columns of `decoders`."""
    [(name, annotation)] = dataset.annotations.items()
    rows, table = [], dataset.table(split)
    for place in places:
        found = table.gather(np.array([place]))
        cells = []
        for column, decoder in enumerate(decoders(isinstance(annotation, Boxes))):
            chunk = {"contents": found["contents"], "index": found["index"], "key": tf.constant([column], tf.int64)}
            example = tf.nest.map_structure(lambda values: values[0], decoder.plan(chunk))
            parts = {part: values[0] for part, values in found["annotations"][name].items()}
            pixels, crop = decoder.pixels({**example, "annotations": {name: parts}})
            moved = {part: values.numpy() for part, values in annotation.transform(parts, crop).items()}
            cells.append(
                np.pad(annotation.draw(pixels.numpy(), moved, dataset.info.class_names), [(0, 4), (0, 4), (0, 0)])
            )
        rows.append(np.concatenate(cells, 1))
    picture = Image.fromarray(np.pad(np.concatenate(rows), [(18, 0), (0, 0), (0, 0)], constant_values=255))
    for column, title in enumerate(TITLES):
        ImageDraw.Draw(picture).text((column * (SIZE[1] + 4) + 4, 3), title, fill="black")
    return picture


def write_masks(root: pathlib.Path, name: str, images: pathlib.Path, masks: pathlib.Path, labels: list[str]) -> None:
    """Writes photos with masks of the same name as a TFDS set."""
    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "segmentation_mask": tfds.features.LabeledImage(labels=labels, shape=(None, None, 1)),
    }
    paths = sorted(masks.glob("*.png"))
    pairs = lambda: (  # noqa: E731
        {"image": images / f"{path.stem}.jpg", "segmentation_mask": np.asarray(Image.open(path))[..., None]}
        for path in paths
    )
    write_features(root, name, features, {"test": pairs})


def main() -> None:
    """Writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    def opened(name, root, annotation):
        data = config(name=name, data_dir=str(root), image_size=SIZE)
        if name != "coco/2017":
            data.train_split = data.eval_split = "test"
        return Dataset.open(data, annotation)

    coco = opened("coco/2017", args.photos / "tfds", {"boxes": Boxes()})
    sheet(coco, "validation", [2, 9, 17, 26, 44, 60]).save(args.out / "coco_boxes.png")
    with tempfile.TemporaryDirectory() as made:
        root = pathlib.Path(made)
        names = [f"BloodImage_{number:05}" for number in (0, 1, 2, 338)]
        features = {"image": tfds.features.Image(encoding_format="jpeg"), "objects": objects_feature(CELLS)}
        write_features(root, "blood", features, {"test": lambda: cells(args.photos / "bccd", names)})
        sheet(opened("blood", root, {"boxes": Boxes()}), "test", [0, 1, 2, 3]).save(args.out / "cells_boxes.png")
        tiny, street = args.photos / "coco_tiny", args.photos / "camvid"
        voc = [str(number) for number in range(21)]
        write_masks(root, "coco_masks", tiny / "val2017", tiny / "masks_voc21" / "val2017", voc)
        voc = opened("coco_masks", root, {"map": PixelMap()})
        sheet(voc, "test", [1, 6, 13, 22, 35]).save(args.out / "coco_masks.png")
        write_masks(root, "street", street / "images", street / "masks", (street / "classes.txt").read_text().split())
        streets = opened("street", root, {"map": PixelMap(ignore=11)})
        sheet(streets, "test", [0, 20, 40, 60, 80]).save(args.out / "street_masks.png")
    print(f"sheets in {args.out}")


if __name__ == "__main__":
    main()
