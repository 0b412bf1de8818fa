"""Which files of a folder are predicted: those that training takes."""

import io
import pathlib

import pytest
from PIL import Image

from mnet_jax.commands.predict import find_images
from mnet_jax.data import folder, layout


@pytest.fixture
def photos(tmp_path):
    """Photos under odd names beside what is none, with links within and to another folder."""
    root, other = tmp_path / "photos", tmp_path / "other"
    names = ["a.jpg", "b/c.jfif", "b/no_ending", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg"]
    for shade, path in enumerate([*(root / name for name in names), other / "linked.png"]):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * shade, 0, 0)).save(file, "PNG")
        path.write_bytes(file.getvalue())
    (root / "notes.jpg").write_text("no image")
    (root / "b" / "up").symlink_to(root)
    (root / "here").symlink_to(root)
    (root / "b" / "others").symlink_to(other)
    (other / "back").symlink_to(root / "b")  # b/others/back is b again
    return root


def test_a_folder_gives_what_training_takes(photos, capsys):
    wanted = ["a.jpg", "b/c.jfif", "b/no_ending", "b/others/linked.png"]
    assert find_images([str(photos)]) == [str(photos / name) for name in wanted]
    assert capsys.readouterr().err == f"mnet: {photos}: left out, no images: {photos}/notes.jpg\n"
    [files] = folder.scan_unsorted(str(photos)).splits.values()
    assert [file.path for file in files] == find_images([str(photos)])


def test_a_link_to_a_parent_is_no_class(photos):
    assert layout.folders(str(photos)) == ["b"]
    assert layout.folders(str(photos / "b")) == ["others"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=f"no images in {pathlib.Path(tmp_path)}"):
        find_images([str(tmp_path)])
