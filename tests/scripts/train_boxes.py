"""Fine-tunes torchvision's SSDLite on a VOC folder from the backbone that ours starts from, for so many minutes.

    python tests/scripts/train_boxes.py /data/bccd --weights v2_0.35.h5 --minutes 11 --peer_python PEERS/bin/python

Prints COCO's figures of what torchvision's finds on "test" after "trainval", by pycocotools. Ours:

    python train.py --config configs/finetune_boxes.py --config.data.folder=/data/bccd --config.init.weights=v2_0.35.h5
        --config.data.train_split=train+val --config.data.eval_split=test --config.task.min_scale=0.15
"""

import argparse
import contextlib
import io
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from box_formats import load
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mnet_jax.models.resolve import resolve_section
from mnet_jax.pretrained.layouts import TORCHVISION
from mnet_jax.pretrained.load import load_pretrained


def backbone(weights: str) -> dict[str, np.ndarray]:
    """Returns the backbone of a classifier under torchvision's names, with its axes."""
    trained = load_pretrained(weights)
    plan = resolve_section(trained.config.model)
    arrays = {}
    for variable, name in TORCHVISION.names(plan):
        if variable.path[0] in ("head", "classifier"):
            continue
        array = trained.variables[variable.collection]
        for part in variable.path:
            array = array[part]
        array = np.asarray(array)
        if variable.path[-1].endswith("kernel"):
            array = array[None, None] if array.ndim == 2 else array
            array = array.transpose(np.argsort(TORCHVISION.kernel_axes(variable, array.ndim)))
        arrays[name] = np.ascontiguousarray(array)
    return arrays


def described(images: dict, names: list[str], first: int) -> list[dict]:
    """Returns the images with their boxes, those without extent left out, ready for JSON."""
    rows = []
    for number, (path, height, width, objects) in enumerate(images.values(), first):
        real = [one for one in objects if one[3] > one[1] and one[4] > one[2]]
        rows.append({
            "id": number, "file": str(path), "size": [height, width], "boxes": [one[1:] for one in real],
            "classes": [names.index(one[0]) for one in real],
        })  # fmt: skip
    return rows


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--peer_python", required=True)
    args = parser.parse_args()
    splits, names = load(args.folder)
    train, test = described(splits["train"] | splits["val"], names, 0), described(splits["test"], names, 1000)
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)
        (folder / "images.json").write_text(json.dumps({"classes": names, "train": train, "test": test}))
        np.savez(folder / "backbone.npz", **backbone(args.weights))
        script = pathlib.Path(__file__).with_name("peer_torch_train_boxes.py")
        command = [args.peer_python, str(script), str(folder), "--minutes", str(args.minutes)]
        subprocess.run(command, check=True)
        result = json.loads((folder / "found.json").read_text())
    truth = {
        "images": [{"id": one["id"], "height": one["size"][0], "width": one["size"][1]} for one in test],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": 1000 * one["id"] + place, "image_id": one["id"], "category_id": kind, "iscrowd": 0,
             "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            for one in test
            for place, (kind, (x1, y1, x2, y2)) in enumerate(zip(one["classes"], one["boxes"], strict=True), 1)
        ],
    }  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(result["found"]), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    print(f"torchvision: {result['steps']} steps, AP {100 * judge.stats[0]:.1f}, AP50 {100 * judge.stats[1]:.1f}")
    at_half = judge.eval["precision"][0, :, :, 0, 2]
    print("AP50 by class:", {name: round(100 * float(at_half[:, k].mean()), 1) for k, name in enumerate(names)})


if __name__ == "__main__":
    main()
