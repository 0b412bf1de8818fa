"""Writes a folder of Pascal VOC XML as COCO JSON and YOLO text too, and compares the batches that come of the three.

    python tests/scripts/box_formats.py /data/bccd [--steps 20]

Run in an empty place; the copies go to a temporary folder. Prints the largest difference of each array of a batch.
"""

import argparse
import pathlib
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "data"))

from box_folders import WRITERS
from sample_sets import config

from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Boxes
from mnet_jax.data.dataset import Dataset


def load(root: pathlib.Path) -> tuple[dict, list[str]]:
    """Returns the images of each split with their objects, read with Python's own XML reader, and the classes."""
    splits = {}
    for split in ("train", "val", "test"):
        splits[split] = images = {}
        for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            tree = ElementTree.parse(root / "Annotations" / f"{stem}.xml")
            height, width = (int(tree.findtext(f"size/{side}")) for side in ("height", "width"))
            sides = ("xmin", "ymin", "xmax", "ymax")
            objects = [
                (one.findtext("name"), *(int(one.findtext(f"bndbox/{side}")) for side in sides))
                for one in tree.findall("object")
            ]
            images[f"{stem}.jpg"] = (root / "JPEGImages" / f"{stem}.jpg", height, width, objects)
    names = {kind for images in splits.values() for *_, objects in images.values() for kind, *_ in objects}
    return splits, sorted(names)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    splits, names = load(args.folder)
    with tempfile.TemporaryDirectory() as place:
        batches, roots = {}, {"voc, as given": args.folder}
        for kind, write in WRITERS.items():
            roots[kind] = pathlib.Path(place) / kind
            write(roots[kind], splits, *([] if kind == "voc" else [names]))
        for kind, root in roots.items():
            data = config(name="folder", folder=str(root), image_size=320, train_split="train+val")
            data.eval_split, data.eval_crop = "test", 1.0
            dataset = Dataset.open(data, {"boxes": Boxes()})
            print(f"{kind}: {dataset.source.sizes} {dataset.info.class_names}")
            print(f"  {dataset.complaint()}")
            stream = pipeline.train_batches(dataset, batch_size=16, seed=0, start_step=0)
            batches[kind] = [next(stream) for _ in range(args.steps)]
            batches[kind] += pipeline.eval_batches(dataset, batch_size=16)
        first = batches["voc, as given"]
        for kind in list(roots)[1:]:
            equal = all((a[name] == b[name]).all() for a, b in zip(batches[kind], first, strict=True) for name in a)
            # of text that is rounded, a centre on the edge of a crop may come to lie on its other side
            same = [
                (a["boxes_mask"] == b["boxes_mask"]).all(1) & (a["boxes_class"] == b["boxes_class"]).all(1)
                for a, b in zip(batches[kind], first, strict=True)
            ]
            off = {
                name: max(
                    np.abs(np.float64(a[name][s]) - b[name][s]).max()
                    for a, b, s in zip(batches[kind], first, same, strict=True)
                )
                for name in ("image", "boxes", "boxes_area")
            }
            print(
                f"{kind}: bit for bit the same: {equal}; the same objects in {sum(map(sum, same))} of "
                f"{sum(map(len, same))} images, in those the largest differences are {off}"
            )


if __name__ == "__main__":
    main()
