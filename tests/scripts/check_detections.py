"""What the published SSD v1 0.75 says, through our codes, suppression and figures, against LiteRT and pycocotools.

    PYTHONPATH=. python tests/scripts/check_detections.py ../shared/data/golden ../data/coco_tiny

The first argument holds ssd_v1_postprocess.npz, ssd_v1_float.json and .npz and coco_tiny_eval; the second COCO's files.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from mnet_jax.tasks.detection import average_precision, coding
from mnet_jax.tasks.detection.average_precision import Found, Truth
from mnet_jax.tasks.detection.suppression import Suppression


def corners(centres):
    """(yc, xc, h, w) -> (y1, x1, y2, x2)."""
    return np.concatenate([centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2], 1)


def operation(golden):
    """The TFLite operation's fast suppression on the file's own numbers."""
    stored = np.load(golden / "ssd_v1_postprocess.npz")

    def real(name):
        scale, zero = stored[f"{name}_quant"]
        return np.float32((stored[name].astype(np.float64) - zero) * scale)

    codes, scores, anchors = real("Squeeze")[0], real("convert_scores")[0], real("anchors")
    rule = Suppression(
        score_threshold=1e-8, at_least=True, iou_threshold=0.6, per_class=False, candidates=None, max_detections=10
    )
    boxes = coding.TENSORFLOW.decode(codes, corners(anchors))
    found = jax.tree.map(np.asarray, rule(boxes[None], scores[None, :, 1:]))
    for name in ("boxes", "classes", "scores"):
        print("operation,", name, "at most", np.abs(found[name][0] - stored[name][0]).max(), "apart")


def figures(golden, coco):
    """Average precision of the network's stored detections on 80 pictures, by two rules, against pycocotools'."""
    content = json.loads((coco / "annotations" / "instances_val2017.json").read_text())
    stored = json.loads((golden / "coco_tiny_eval" / "ssd_v1_075_detections_val2017.json").read_text())
    expected = json.loads((golden / "coco_tiny_eval" / "real_models.json").read_text())
    kinds = {kind: n for n, kind in enumerate(sorted(row["id"] for row in content["categories"]))}
    images = {image: n for n, image in enumerate(sorted(row["id"] for row in content["images"]))}
    yxyx = lambda rows: np.array([(y, x, y + h, x + w) for x, y, w, h in (row["bbox"] for row in rows)])  # noqa: E731
    number = lambda rows: np.array([images[row["image_id"]] for row in rows])  # noqa: E731
    kind = lambda rows: np.array([kinds[row["category_id"]] for row in rows])  # noqa: E731
    truth = content["annotations"]
    there = Truth(
        number(truth), yxyx(truth), kind(truth), np.array([bool(row["iscrowd"]) for row in truth]),
        np.array([row["area"] for row in truth], float),
    )  # fmt: skip
    for name, said in stored.items():
        found = Found(number(said), yxyx(said), kind(said), np.array([row["score"] for row in said]))
        ours = average_precision.coco(found, there, 80).figures
        print(f"{name}: AP {ours[0]:.5f}, at most {np.abs(ours - expected[name]['stats']).max():.1e} from pycocotools'")


if __name__ == "__main__":
    operation(pathlib.Path(sys.argv[1]))
    figures(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
