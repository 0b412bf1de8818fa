"""Real photos with boxes and masks, unpacked once per machine."""

import contextlib
import pathlib
import subprocess
import sys
import tempfile

import pytest


@pytest.fixture(scope="session")
def annotated_photos(real_data, tmp_path_factory) -> pathlib.Path:
    """Directory with bccd, coco_tiny, camvid and tfds/coco/2017."""
    out = pathlib.Path(tempfile.gettempdir()) / "mnet_jax_annotated_photos"
    if not out.exists():
        part = tmp_path_factory.mktemp("prepare") / "photos"
        command = [sys.executable, real_data / "prepare.py", "--out", part, "--only", "bccd", "coco_tiny", "camvid"]
        subprocess.run(command, check=True, capture_output=True)
        with contextlib.suppress(OSError):  # another test process was faster
            part.rename(out)
    return out
