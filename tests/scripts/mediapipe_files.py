"""MediaPipe beside `mnet`: a .tflite file of `mnet export`, opened by MediaPipe's tasks on real photos.

    python tests/scripts/mediapipe_files.py FILE PHOTOS --peer_python PEERS/bin/python --num_images 20

PEERS is an environment with mediapipe. The photos are brought to the file's size first, so that both get the same
pixels; LiteRT runs the file here. Prints how much agrees: names and scores, boxes, or the class of each pixel.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from PIL import Image

from mnet_jax.deploy import formats


def classification(found: list, expected: np.ndarray, labels: list[str], size: int) -> tuple[int, int, float]:
    """Returns how many of the classes agree, of how many, and the largest difference of a score."""
    scores = {name: score for name, score in found}
    of_names = np.array([scores.get(name, 0.0) for name in labels])
    return int(max(scores, key=scores.get) == labels[int(expected.argmax())]), 1, float(abs(of_names - expected).max())


def detection(found: list, expected: dict, labels: list[str], size: int) -> tuple[int, int, float]:
    """Returns how many detections above .3 agree in class, score (.001) and box, and the worst pixel.

    MediaPipe brings left, top, width and height into 0 to the size, each cut to whole pixels, and of several
    classes in one box shows the best.
    """
    rows, boxes = [], set()
    for box, kind, score in zip(expected["boxes"], expected["classes"], expected["scores"], strict=True):
        if score > 0.3 and tuple(box) not in boxes:
            boxes.add(tuple(box))
            top, left, bottom, right = box * size
            corner, extent = np.maximum((left, top), 0), np.array((right - left, bottom - top))
            rows.append((labels[int(kind)], float(score), np.concatenate([corner, np.minimum(extent, size)])))
    worst, same = 0.0, 0
    for name, score, box in rows:
        near = [
            abs(box - np.array([left, top, right - left, bottom - top])).max()
            for other, value, left, top, right, bottom in found
            if other == name and abs(value - score) < 0.001
        ]
        if near and min(near) < 1.001:
            same, worst = same + 1, max(worst, min(near))
    return same, max(len(rows), len(found)), worst


def segmentation(found: list, expected: np.ndarray, labels: list[str], size: int) -> tuple[int, int, float]:
    """Returns how many pixels of the file's own grid have the same class in MediaPipe's mask of the photo."""
    mask, grid = np.array(found), expected.argmax(-1)
    rows, columns = ((np.arange(n) * (size - 1) / (n - 1)).round().astype(int) for n in grid.shape)
    same = mask[np.ix_(rows, columns)] == grid
    return int(same.sum()), same.size, float(1 - same.mean())


def main() -> None:
    """Prints the agreement of each kind of file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("photos", type=pathlib.Path)
    parser.add_argument("--peer_python", required=True)
    parser.add_argument("--num_images", type=int, default=20)
    args = parser.parse_args()
    exported = formats.load(args.file)
    about = exported.about
    height, width = about.image_size
    labels = about.labels().splitlines()
    compare = {"classification": classification, "detection": detection, "segmentation": segmentation}[about.task]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for photo in sorted(args.photos.glob("*.jpg"))[: args.num_images]:
            files.append(str(pathlib.Path(folder) / f"{photo.stem}.png"))
            Image.open(photo).convert("RGB").resize((width, height), Image.Resampling.BILINEAR).save(files[-1])
        script = str(pathlib.Path(__file__).with_name("peer_mediapipe.py"))
        command = [args.peer_python, script, about.task, args.file, *files]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        rows = []
        for file, line in zip(files, lines, strict=True):
            image = np.asarray(Image.open(file))[None]
            results = exported(image)
            one = {k: v[0] for k, v in results.items()} if isinstance(results, dict) else results[0]
            rows.append(compare(json.loads(line), one, labels, width))
    same, of, worst = (sum(row[0] for row in rows), sum(row[1] for row in rows), max(row[2] for row in rows))
    print(f"{about.task}: {len(rows)} photos, {same:,} of {of:,} the same; largest difference {worst:.2g}")


if __name__ == "__main__":
    main()
