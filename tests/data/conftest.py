"""Real photos with boxes and masks."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def annotated_photos(unpacked) -> pathlib.Path:
    """Directory with bccd, coco_tiny, camvid and tfds/coco/2017."""
    return unpacked("bccd", "coco_tiny", "camvid")
