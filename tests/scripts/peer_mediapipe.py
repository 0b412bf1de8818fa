"""What MediaPipe's tasks find in square photos with a .tflite file that `mnet export` wrote, as JSON lines.

    python tests/scripts/peer_mediapipe.py TASK FILE PHOTOS...        (an environment with mediapipe)

TASK is classification, detection or segmentation; a line is [[name, score, left, top, right, bottom]...] of a photo, or
the pixels of each class in turn. The names come from the file's own metadata, as the sizes and the normalisation do.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def classify(file):
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=file))
    task = vision.ImageClassifier.create_from_options(options)
    return lambda image: [[c.category_name, c.score] for c in task.classify(image).classifications[0].categories]


def detect(file):
    options = vision.ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=file), score_threshold=0.3)
    task = vision.ObjectDetector.create_from_options(options)

    def found(image):
        for one in task.detect(image).detections:
            box = one.bounding_box
            corners = (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
            yield [one.categories[0].category_name, one.categories[0].score, *corners]

    return lambda image: list(found(image))


def segment(file):
    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=file), output_category_mask=True, output_confidence_masks=False
    )
    task = vision.ImageSegmenter.create_from_options(options)
    return lambda image: np.squeeze(task.segment(image).category_mask.numpy_view()).tolist()


def main():
    kind, file, *photos = sys.argv[1:]
    task = {"classification": classify, "detection": detect, "segmentation": segment}[kind](file)
    for photo in photos:
        print(json.dumps(task(mediapipe.Image.create_from_file(photo))))


if __name__ == "__main__":
    main()
