"""Fine-tunes torchvision's LR-ASPP on a folder with masks from the backbone that ours starts from, for so many minutes.

    python tests/scripts/train_masks.py /data/camvid --weights v2_0.35.h5 --minutes 15 --peer_python PEERS/bin/python

Prints the figures of what torchvision's says of the pictures that our split holds out, in their own pixels and counted
as `mnet evaluate` counts. Ours:

    python train.py --config configs/finetune_masks.py --config.data.folder=/data/camvid
        --config.init.weights=v2_0.35.h5 --config.data.image_size="(240,320)"
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from train_boxes import backbone

from mnet_jax.data.masks.folder import MaskFile, scan
from mnet_jax.tasks.segmentation.meter import figures


def saved(files: tuple[MaskFile, ...], folder: pathlib.Path, split: str) -> list[dict[str, str]]:
    """Returns the pictures with files of their maps, which it writes into the folder: ready for JSON."""
    rows = []
    for number, one in enumerate(files):
        mask = folder / f"{split}_{number}.png"
        mask.write_bytes(one.contents)
        rows.append({"image": str(pathlib.Path(one.path).resolve()), "mask": str(mask)})
    return rows


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--image_size", default="240,320", help="height and width")
    parser.add_argument("--batch_size", default="8")
    parser.add_argument("--lr", default="0.01")
    args = parser.parse_args()
    listing = scan(str(args.folder))
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        train, held_out = (saved(listing.splits[name], folder, name) for name in ("train", "validation"))
        about = {"num_classes": len(listing.class_names), "train": train, "test": held_out}
        (folder / "images.json").write_text(json.dumps(about))
        np.savez(folder / "backbone.npz", **backbone(args.weights))
        script = pathlib.Path(__file__).with_name("peer_torch_train_masks.py")
        command = [args.peer_python, str(script), str(folder), "--minutes", str(args.minutes)]
        command += ["--image_size", args.image_size, "--batch_size", args.batch_size, "--lr", args.lr]
        subprocess.run(command, check=True)
        said = np.load(folder / "said.npz")
        truth = np.load(folder / "truth.npz")
        num_classes = about["num_classes"]
        confusion = np.zeros((num_classes, num_classes), np.int64)
        for number in map(str, range(len(held_out))):
            known = truth[number] < num_classes
            pairs = truth[number][known].astype(np.int64) * num_classes + said[number][known]
            confusion += np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    found = figures(confusion)
    print(f"{len(train)} pictures learned from, {len(held_out)} judged, {confusion.sum():,} pixels")
    print(f"torchvision: mIoU {100 * found.miou:.1f}, pixels {100 * found.pixel_accuracy:.1f}")
    print(
        "IoU by class:",
        {name: round(100 * float(iou), 1) for name, iou in zip(listing.class_names, found.iou, strict=True)},
    )


if __name__ == "__main__":
    main()
