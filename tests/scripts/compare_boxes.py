"""Our network with weights of others, against what theirs made of the same images; largest differences.

python tests/scripts/compare_boxes.py FOLDER           after peer_torch_boxes.py FOLDER
python tests/scripts/compare_boxes.py FILE GOLDEN      the published coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite,
                                                       and a folder with ssd_v1_float.npz and ssd_v1_postprocess.npz
"""

import pathlib
import sys

import jax
import numpy as np

from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.boxes import resolve_head
from mnet_jax.models.heads.tables import find_head
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.pretrained.readers import tflite
from mnet_jax.tasks.detection.anchors import anchors
from mnet_jax.tasks.detection.network import Detector


def load(path):
    """A detector's file: the model, and its network."""
    trained = load_pretrained(path)
    section = trained.config.model
    names = ("width", "width_rule", "padding", "norm_epsilon")
    plan = resolve(find_spec(section.name), **{name: section[name] for name in names})
    head = resolve_head(find_head(trained.config.task.head), plan, trained.info.num_classes)
    return trained, Detector.for_plan(plan, Compute(), head)


def show(name, ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    difference = np.abs(ours - theirs).max()
    print(f"{name:12} {theirs.shape!s:22} largest {np.abs(theirs).max():9.4f}  difference {difference:.2e}")


def compare_torchvision(folder):
    trained, network = load(folder / "detector.pth")
    theirs = np.load(folder / "outputs.npz")

    def run(variables, images):
        return network.apply(variables, images, method="head_maps"), network.apply(variables, images)

    maps, outputs = jax.jit(run)(trained.variables, theirs["images"])
    for number, x in enumerate(maps):
        show(f"map {number}", x, theirs[f"map_{number}"])
    show("classes", outputs["classes"], theirs["classes"])
    show("boxes", np.asarray(outputs["boxes"])[..., (1, 0, 3, 2)], theirs["boxes"])
    show("anchors", anchors(network.head_plan, 320)[:, (1, 0, 3, 2)], theirs["anchors"])


def compare_tflite(path, golden):
    trained, network = load(path)
    theirs = np.load(golden / "ssd_v1_float.npz")
    pixels = np.load(golden / "ssd_v1_postprocess.npz")["image_300"].astype(np.float32)[None]
    images = (pixels - np.float32(trained.config.data.mean)) / np.float32(trained.config.data.std)
    outputs = jax.jit(network.apply)(trained.variables, images)
    show("codes", outputs["boxes"][0], theirs["encodings"])
    show("scores", jax.nn.sigmoid(outputs["classes"][0]), theirs["scores"])
    corners = anchors(network.head_plan, 300).astype(np.float64) / 300
    ours = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], -1)
    stored = next(tensor for tensor in tflite.read(path).tensors if tensor.name == "anchors")
    show("anchors", ours, stored.values)
    print(f"half a step of the file's anchors: {stored.scale[0] / 2:.2e}")


if __name__ == "__main__":
    paths = [pathlib.Path(argument) for argument in sys.argv[1:]]
    compare_torchvision(*paths) if len(paths) == 1 else compare_tflite(*paths)
