"""Random and changed bytes in every reader of files from strangers: a result or one line, in bounds of memory, time."""

import contextlib
import json
import pathlib
import resource
import shutil
import zipfile

import fault
import faults
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_sets import encode, picture

from mnet_jax import config
from mnet_jax.data import decode, formats
from mnet_jax.data.boxes import folder as boxes
from mnet_jax.pretrained.load import load_pretrained
from mnet_jax.training import checkpoint, saved
from mnet_jax.training.reporting.run_files import read_rows

pytestmark = pytest.mark.long
EXAMPLES, SECONDS, MEMORY = 60, 20, 512 << 20
LIMITS = settings(
    max_examples=EXAMPLES,
    deadline=1000 * SECONDS,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Places are shares of a file's length: both its ends, where headers and tables of contents are, as often as all else.
SHARES = st.one_of(st.floats(0, 1), st.floats(0, 0.02), st.floats(0.98, 1))
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("set"), SHARES, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("flip"), SHARES, st.integers(0, 7)),
        st.tuples(st.just("insert"), SHARES, st.binary(min_size=1, max_size=64)),
        st.tuples(st.just("delete"), SHARES, st.integers(1, 200)),
        st.tuples(st.just("cut"), SHARES, st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def changed(contents, changes):
    """The bytes of a file after some changes."""
    contents = bytearray(contents)
    for what, share, value in changes:
        place = int(share * max(len(contents) - 1, 0))
        if what == "set":
            contents[place : place + len(value)] = value
        elif what == "flip" and contents:
            contents[place] ^= 1 << value
        elif what == "insert":
            contents[place:place] = value
        elif what == "delete":
            del contents[place : place + value]
        elif what == "cut":
            del contents[place:]
    return bytes(contents)


def read(reader, path, start):
    """Reads a file: anything may come of it but another error than one that a line explains."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        reader(path)
    except (ValueError, OSError) as error:
        text = str(error)
        assert text.strip()
        assert "\n" not in text, text
        assert len(text) < 1000, text
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MEMORY, f"{grown >> 20} MiB"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    return fault.Things(tmp_path_factory.mktemp("things"))


# --- Weights ---


def weights_files(things):
    """Real files of each format, smaller than 2 MB."""
    folder = things.weights
    if not (folder / "m.keras").exists():
        with zipfile.ZipFile(folder / "m.keras", "w") as archive:
            archive.writestr("config.json", json.dumps({"module": "keras"}))
            archive.writestr("model.weights.h5", numbered(folder).read_bytes())
        shutil.copy(things.exported / "model.tflite", folder / "m.tflite")
    return folder


def numbered(folder):
    path = folder / "m.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 3, 8), np.float32)
        file["layers/dense/vars/0"] = np.ones((8, 10), np.float32)
    return path


@pytest.mark.parametrize("name", ["m.pth", "old.pth", "m.h5", "m.weights.h5", "m.keras", "m.safetensors", "m.tflite"])
def test_weights(name, things, tmp_path):
    contents = (weights_files(things) / name).read_bytes()
    path = tmp_path / name
    if name == "m.safetensors":
        shutil.copy(things.weights / "config.json", tmp_path)

    @LIMITS
    @given(st.one_of(CHANGES.map(lambda changes: changed(contents, changes)), st.binary(max_size=300)))
    def test(found):
        path.write_bytes(found)
        read(lambda path: load_pretrained(path, log=lambda line: None), path, contents)

    test()


def test_the_config_beside_safetensors(things, tmp_path):
    shutil.copy(things.weights / "m.safetensors", tmp_path)
    contents = (things.weights / "config.json").read_bytes()

    @LIMITS
    @given(CHANGES)
    def test(changes):
        (tmp_path / "config.json").write_bytes(changed(contents, changes))
        read(lambda path: load_pretrained(path, log=lambda line: None), tmp_path / "m.safetensors", contents)

    test()


# --- Images ---

PICTURE = picture(40, 56)
IMAGES = {
    "JPEG": encode(PICTURE, "JPEG"),
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True),
    "PNG": encode(PICTURE, "PNG"),
    "transparent PNG": encode(np.dstack([PICTURE, PICTURE[..., 0]]), "PNG"),
    "GIF": encode(PICTURE, "GIF"),
    "BMP": encode(PICTURE, "BMP"),
    "WebP": encode(PICTURE, "WEBP"),
    "TIFF": encode(PICTURE, "TIFF", compression="tiff_lzw"),
}


@pytest.mark.filterwarnings(r"ignore:::PIL")  # as the product has it
@pytest.mark.parametrize("kind", IMAGES)
def test_images(kind, tmp_path):
    path = tmp_path / "image"

    def both(path):
        """As a folder is checked, and as `mnet predict` reads: what the first lets pass the second can decode."""
        verdict = formats.judge([str(path)])[0]
        try:
            pixels = decode.load_image(path)
        except ValueError:
            if verdict.fault is None and not path.read_bytes().startswith(b"\xff\xd8"):
                raise AssertionError("a folder would take what cannot be read") from None
            raise
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.shape[2] == 3

    @LIMITS
    @given(st.one_of(CHANGES.map(lambda changes: changed(IMAGES[kind], changes)), st.binary(max_size=300)))
    def test(found):
        path.write_bytes(found)
        read(both, path, found)

    test()


# --- Annotations ---


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 56}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 20, 30], "segmentation": [[1, 2, 20, 2, 20, 30]]}
    ],
}
VOC = """<annotation><filename>a.jpg</filename><size><width>56</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
</annotation>"""
BOXES = {
    "COCO": {"train/_annotations.coco.json": json.dumps(COCO).encode()},
    "VOC": {"train/a.xml": VOC.encode()},
    "YOLO": {"train/labels/a.txt": b"0 0.5 0.5 0.2 0.3\n", "data.yaml": b"names: [cat]\ntrain: train/images\n"},
}


@pytest.mark.parametrize("format", BOXES)
@pytest.mark.filterwarnings("ignore")
def test_annotations_of_boxes(format, tmp_path):
    name, contents = next(iter(BOXES[format].items()))
    root = tmp_path / "boxes"
    for file, text in {**BOXES[format], "train/a.jpg": IMAGES["JPEG"], "train/images/a.jpg": IMAGES["JPEG"]}.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(text)

    @LIMITS
    @given(st.one_of(CHANGES.map(lambda changes: changed(contents, changes)), st.binary(max_size=200)))
    def test(found):
        (root / name).write_bytes(found)
        read(lambda root: boxes.scan(str(root)), root, found)

    test()


# --- Our own ---


@pytest.mark.parametrize("sums", [True, False], ids=["with sums", "without"])
def test_checkpoints(sums, things, tmp_path):
    """With its sums a checkpoint is what was written, or refused; without (of an earlier version) it may be changed."""
    whole = tmp_path / "whole"
    shutil.copytree(faults.checkpoint(things.run), whole)
    if not sums:
        (whole / "files.json").unlink()
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    expected = saved.read(checkpoint._absolute(whole)).arrays

    @LIMITS
    @given(st.sampled_from(names), CHANGES)
    def test(name, changes):
        shutil.rmtree(tmp_path / "damaged", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "damaged")
        path = tmp_path / "damaged" / name
        path.write_bytes(changed(path.read_bytes(), changes))

        def both(path):
            found = saved.read(checkpoint._absolute(path)).arrays
            assert {key: value.tobytes() for key, value in found.items()} == {
                key: value.tobytes() for key, value in expected.items()
            }

        read(both, tmp_path / "damaged", None)

    test()


def test_the_rows_and_the_config_of_a_run(things, tmp_path):
    rows, text = (things.run / "metrics.jsonl").read_bytes(), (things.run / "config.json").read_bytes()

    @LIMITS
    @given(CHANGES)
    def test(changes):
        (tmp_path / "metrics.jsonl").write_bytes(changed(rows, changes))
        for row in read_rows(tmp_path / "metrics.jsonl"):
            assert isinstance(row["step"], int)
            assert isinstance(row["elapsed"], int | float)
        with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):  # for a start it "was damaged" then
            config.validate(config.from_json(changed(text, changes).decode()))

    test()


@pytest.mark.parametrize("name", ["model.tflite", "model.onnx", "model.stablehlo"])
def test_exported_files(name, things, tmp_path):
    """What is not whole never meets its runtime, as long as it has its sum."""
    from mnet_jax.deploy import formats as exported

    contents = (things.exported / name).read_bytes()

    @LIMITS
    @given(CHANGES)
    def test(changes):
        path = pathlib.Path(tmp_path / name)
        path.write_bytes(changed(contents, changes))
        if path.read_bytes()[-60:] == contents[-60:] and path.read_bytes() != contents:
            with pytest.raises(ValueError, match="is damaged|is none of"):
                exported.load(path)

    test()
