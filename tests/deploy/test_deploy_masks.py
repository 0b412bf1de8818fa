"""Segmenters in every format, in their own runtimes: against the network, resized as the network's library does."""

import json
import tarfile

import jax
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from networks import MEAN, STD, normalized, random_images, random_variables
from networks import about as about_classes

from mnet_jax.deploy import fold as folding
from mnet_jax.deploy import formats, onnx, tflite
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.tasks.classification.network import create_model
from mnet_jax.tasks.segmentation import export
from mnet_jax.tasks.segmentation.network import create_segmenter

SIZE = (64, 96)
CLASSES = ("road", "tree", "sky")


@pytest.fixture(scope="module", params=[("lraspp_v3_large", 0.25), ("deeplab_v2_tf", 0.25)], ids=["lraspp", "deeplab"])
def segmenter(request):
    """(network, variables, images, logits) of one with half-pixel centres and gates, of one with corners and rates."""
    name, width = request.param
    network = create_segmenter(name, num_classes=len(CLASSES), width=width, auxiliary=False)
    variables = random_variables(network.plan, listed=network.list_variables())
    images = random_images(SIZE, 2)
    logits = jax.jit(lambda variables: network.apply(variables, normalized(images)))(variables)["classes"]
    return network, variables, images, np.asarray(logits)


def graph_of(segmenter, output):
    network, variables, _, _ = segmenter
    head = lambda graph: export.head(graph, network, None, output)  # noqa: E731
    return folding.fold(network.plan, variables, head, image_size=SIZE, input="uint8", mean=MEAN, std=STD)


def about(output, **fields):
    plan = create_model("v1", num_classes=3, width=0.25).plan
    return about_classes(plan, SIZE, class_names=CLASSES, output=output, task="segmentation", **fields)


def enlarged(segmenter):
    network, _, _, logits = segmenter
    return np.asarray(upsample(logits, SIZE, align_corners=network.head_plan.align_corners))


@pytest.mark.parametrize("output", export.OUTPUTS)
def test_onnx_gives_logits_on_the_grid_or_at_the_size_of_the_input_or_classes(segmenter, output):
    _, _, images, logits = segmenter
    model = onnx.build(graph_of(segmenter, output), about(output)).SerializeToString()
    (found,) = onnxruntime.InferenceSession(model).run([output], {"images": images})
    whole = enlarged(segmenter)
    expected = {"logits": logits, "full_logits": whole, "classes": whole.argmax(-1)}[output]
    assert found.shape == expected.shape
    if output == "classes":
        assert found.dtype == np.int32
        assert len(np.unique(expected)) > 1
        assert (found == expected).mean() > 0.999
    else:
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_tflite_and_what_mediapipe_reads(segmenter, tmp_path):
    _, _, images, _ = segmenter
    path = tmp_path / "model.tflite"
    formats.write(graph_of(segmenter, "full_logits"), about("full_logits"), path, "tflite")
    expected = enlarged(segmenter)
    found = formats.load(path)(images)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    model = path.read_bytes()
    assert tflite.operations(model)[-1] == "RESIZE_BILINEAR"
    assert not {"SPACE_TO_BATCH_ND", "TRANSPOSE", "TILE"} & set(tflite.operations(model))
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    entry = next(entry for entry in tree.metadata if entry.name == b"TFLITE_METADATA")
    metadata = bytes(bytearray(tree.buffers[entry.buffer].data))
    assert b"SEGMENTER_METADATA" in metadata
    inner = metadata.index(b"V001") - 4  # a flatbuffer of its own: root, identifier, then its table
    table = inner + int.from_bytes(metadata[inner : inner + 4], "little")
    slots = table - int.from_bytes(metadata[table : table + 4], "little", signed=True)
    assert metadata[table + int.from_bytes(metadata[slots + 4 : slots + 6], "little")] == 2  # SOFTMAX
    assert b"labels.txt" in metadata


@pytest.mark.long
@pytest.mark.parametrize("format", ["stablehlo", "savedmodel"])
def test_the_other_formats(segmenter, tmp_path, format):
    _, _, images, _ = segmenter
    formats.write(graph_of(segmenter, "full_logits"), about("full_logits"), tmp_path / "model", format)
    expected = enlarged(segmenter)
    assert np.abs(formats.load(tmp_path / "model")(images) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.long
def test_a_published_segmenter_on_real_photos(real_data, tmp_path, mnet):
    """TensorFlow's DeepLab on 20 photos of COCO, as float32 and as int8: the same class almost everywhere."""
    weights = real_data / "weights" / "segmentation" / "deeplabv3.tflite"
    with tarfile.open(real_data / "coco_tiny.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (train,), (val,) = tmp_path.glob("*/train2017"), tmp_path.glob("*/val2017")
    photos = sorted(val.iterdir())[:20]
    for least, options in ((0.999, ()), (0.97, ("--quantize", "int8", "--calibration", train))):
        path = tmp_path / "model.tflite"
        assert mnet("export", "--weights", weights, "--format", "tflite", *options, "--out", path)[0] == 0
        code, out, _ = mnet("verify-export", path, "--weights", weights, "--images", *photos, "--json")
        assert code == 0
        result = json.loads(out)
        assert result["num_images"] == 20
        assert result["agreement"] >= least
