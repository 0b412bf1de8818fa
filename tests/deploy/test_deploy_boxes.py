"""Detectors in every format, in their own runtimes: against the model's detections, and each by its own rules."""

import dataclasses
import json
import tarfile
import zipfile

import jax
import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from networks import random_images, random_variables

from mnet_jax import schema as run_schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.deploy import formats, onnx, tflite
from mnet_jax.deploy.detections import in_tflite
from mnet_jax.deploy.detections.in_tflite import OPERATION
from mnet_jax.deploy.export import build_graph, export
from mnet_jax.deploy.int8.quantize import int8_model
from mnet_jax.deploy.interpret import interpret
from mnet_jax.models.heads.tables import find_detector
from mnet_jax.tasks.detection.agreement import BoxComparison
from mnet_jax.trained import Trained, build_model, build_task

SIZE = 128
CLASSES = ("cup", "bottle", "plate")


def detector(name, **fields):
    """A trained detector with random weights, narrow and small, of either head."""
    config = run_schema.get_config()
    config.update_from_flattened_dict(find_detector(name).settings)
    config.update_from_flattened_dict({"model.width": 0.25, "data.image_size": SIZE, **fields})
    info = DatasetInfo.made_up(
        len(CLASSES), name="made up", class_names=CLASSES, num_train=0, num_eval=0,
        statistics=(config.data.mean, config.data.std),
    )  # fmt: skip
    network = build_model(config, info)
    variables = random_variables(network.plan, listed=network.list_variables())
    predictors = {layers[-1].name for layers in network.head_plan.classes}
    for name in predictors:  # few classes are sure of themselves, as in a trained detector
        head = variables["params"][name]
        head["kernel"] *= 8
        head["bias"] -= 1.0
    return Trained(variables=variables, config=config, info=info, step=0, metrics=None, path="random weights")


@pytest.fixture(scope="module")
def images():
    return random_images(SIZE, 2)


@pytest.fixture(scope="module")
def both(images):
    """The two heads, each a trained detector and what its network gives for the images.

    "softmax": an expansion is tapped, padding as in PyTorch; "sigmoid": dense layers, padding as in TensorFlow.
    """
    found = {}
    for kind, name in (("softmax", "ssdlite320_v3_small"), ("sigmoid", "ssd300_v1")):
        trained = detector(name)
        task = build_task(trained.config, trained.info)
        network = build_model(trained.config, trained.info, task=task)
        run = jax.jit(lambda x, network=network, task=task: network.apply(x[0], task.eval_inputs({"image": x[1]})))
        found[kind] = trained, run((trained.variables, images))
    return found


@pytest.fixture(params=["softmax", "sigmoid"])
def kind(request):
    return request.param


def detections(both, kind, **suppression):
    """What the model finds by its own rules but for some, with boxes in 0..1."""
    trained, outputs = both[kind]
    task = build_task(trained.config, trained.info)
    task = dataclasses.replace(task, suppression=dataclasses.replace(task.suppression, **suppression))
    found = jax.jit(task.detect)(outputs)
    return jax.tree.map(np.asarray, {**found, "boxes": found["boxes"] / SIZE})


@pytest.fixture(scope="module")
def converted(both):
    """Of each head the TFLite model up to its detections, converted once."""
    graphs = {kind: in_tflite.without(build_graph(trained)[0])[0] for kind, (trained, _) in both.items()}
    return {kind: tflite.run_converter(graph, lambda _: None) for kind, graph in graphs.items()}


def tflite_file(trained, converted, path, **settings):
    """Writes the file that `export` would, with other settings of its operation."""
    graph, about = build_graph(trained, task=settings)
    path.write_bytes(tflite.finish(converted, about, graph))
    return path


def assert_same(found, expected, tolerance=1e-5):
    """The same detections in the same order, but for those whose scores are equal to the tolerance."""
    np.testing.assert_array_equal(found["count"], expected["count"])
    for image, count in enumerate(np.int64(expected["count"])):
        scores = expected["scores"][image, :count]
        np.testing.assert_allclose(found["scores"][image, :count], scores, atol=tolerance)
        gaps = np.abs(np.diff(scores, prepend=2.0, append=-1.0))
        sure = np.minimum(gaps[:-1], gaps[1:]) > 4 * tolerance
        assert sure.mean() > 0.5
        np.testing.assert_array_equal(found["classes"][image, :count][sure], expected["classes"][image, :count][sure])
        boxes = np.clip(found["boxes"][image, :count][sure], 0, 1)
        np.testing.assert_allclose(boxes, expected["boxes"][image, :count][sure], atol=20 * tolerance)


@pytest.mark.parametrize(
    ("kind", "format", "nms"),
    [
        ("sigmoid", "stablehlo", "class"),
        ("softmax", "onnx", "class"),
        ("softmax", "onnx", "all"),
        ("sigmoid", "onnx", "class"),
        ("sigmoid", "onnx", "all"),
        ("softmax", "savedmodel", "class"),
        ("sigmoid", "savedmodel", "all"),
    ],
)
def test_a_file_finds_what_the_model_finds(both, images, tmp_path, kind, format, nms):
    rule = {} if format == "stablehlo" else {"candidates": None}
    expected = detections(both, kind, score_threshold=0.05, per_class=nms == "class", **rule)
    about = export(both[kind][0], tmp_path / "model", format=format, task={"nms": nms})
    exported = formats.load(tmp_path / "model")
    found = exported(images)
    assert exported.about == about
    assert about.task_settings == {"score_threshold": 0.05, "nms": nms}
    assert {name: values.dtype for name, values in found.items()} == dict.fromkeys(expected, np.float32)
    assert expected["count"].min() > 5
    assert_same(found, expected)
    for image in range(2):  # nothing behind the last
        count = int(found["count"][image])
        assert not any(np.any(found[name][image, count:]) for name in ("boxes", "classes", "scores"))
    np.testing.assert_array_equal(exported(images[:1])["count"], found["count"][:1])  # any batch


def test_nothing_is_found_where_there_is_nothing(both, kind, converted, images, tmp_path):
    settings = {"score_threshold": 0.9999, "max_detections": 7}
    tflite_file(both[kind][0], converted[kind], tmp_path / "tflite", **settings)
    export(both[kind][0], tmp_path / "onnx", format="onnx", task=settings)
    for format in ("tflite", "onnx"):
        found = formats.load(tmp_path / format)(images)
        assert found["boxes"].shape == (2, 7, 4)
        assert found["count"].tolist() == [0, 0]


# --- TFLite ---


def operation(task, outputs, slots):
    """One image's detections by TFLite_Detection_PostProcess, in NumPy, after what its kernel does."""
    rule, codes = task.suppression, np.asarray(outputs["boxes"][0], np.float64)
    logits = np.asarray(outputs["classes"][0], np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    scores = exp / exp.sum(-1, keepdims=True) if task.head.scores == "softmax" else 1 / (1 + np.exp(-logits))
    scores = scores[:, slots - task.num_classes :]
    anchors = task.anchors.astype(np.float64) / SIZE
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = codes[:, :2] / 10 * sizes + (anchors[:, :2] + anchors[:, 2:]) / 2
    halves = np.exp(codes[:, 2:] / 5) * sizes / 2
    boxes = np.concatenate([centres - halves, centres + halves], 1)

    def overlap(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
        common = np.prod(np.maximum(high - low, 0))
        return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)

    def keep(values):
        kept = []
        for place in np.argsort(-values, kind="stable"):
            if values[place] < rule.score_threshold or len(kept) == rule.max_detections:
                break
            if all(overlap(boxes[place], boxes[other]) <= rule.iou_threshold for other in kept):
                kept.append(place)
        return kept

    if rule.per_class:
        rows = [(scores[place, k], k, place) for k in range(task.num_classes) for place in keep(scores[:, k])]
        rows = sorted(rows, key=lambda row: -row[0])[: rule.max_detections]
    else:
        rows = [(scores[place].max(), scores[place].argmax(), place) for place in keep(scores.max(1))]
    score, kind, place = (np.array(column)[None] for column in zip(*rows, strict=True))
    return {"boxes": boxes[place], "classes": kind, "scores": score, "count": np.array([len(rows)])}


@pytest.mark.parametrize("nms", ["class", "all"])
def test_tflite_by_the_rules_of_its_operation(both, kind, converted, images, tmp_path, nms):
    trained, outputs = both[kind]
    found = formats.load(tflite_file(trained, converted[kind], tmp_path / "model", nms=nms))(images[:1])
    task = build_task(trained.config, trained.info)
    rule = dataclasses.replace(task.suppression, score_threshold=0.05, per_class=nms == "class")
    expected = operation(dataclasses.replace(task, suppression=rule), outputs, outputs["classes"].shape[-1])
    boxes = found["boxes"][0, : int(found["count"][0])]  # behind them lies what was in memory
    assert boxes.min() < 0 or boxes.max() > 1  # boxes are not cut off
    assert_same(found, {**expected, "boxes": np.clip(expected["boxes"], 0, 1)})


@pytest.mark.parametrize("nms", ["class", "all"])
def test_tflite_finds_the_same_with_any_number_of_threads(both, kind, converted, images, tmp_path, nms):
    """The operation itself passes over class n when n threads run it."""
    path = tflite_file(both[kind][0], converted[kind], tmp_path / "model", nms=nms)
    expected = formats.load(path, threads=1)(images)
    if nms == "class":
        assert 2 in expected["classes"]  # which two threads would pass over
    for threads in (2, 3):
        found = formats.load(path, threads=threads)(images)
        np.testing.assert_array_equal(found["count"], expected["count"])
        for ours, theirs, count in zip(found["scores"], expected["scores"], expected["count"], strict=True):
            number = int(count)  # behind them the operation leaves what lay in its memory
            np.testing.assert_allclose(ours[:number], theirs[:number], atol=1e-6)


def test_tflite_finds_what_the_model_finds(both, kind, converted, images, tmp_path):
    """By sigmoid heads all; with softmax the model cuts boxes off before suppression, and overlaps differ at edges."""
    found = formats.load(tflite_file(both[kind][0], converted[kind], tmp_path / "model"))(images)
    expected = detections(both, kind, score_threshold=0.05, candidates=None)
    if kind == "sigmoid":
        assert_same(found, expected)
        return
    for image in range(2):
        ours = {tuple(row) for row in np.round(expected["boxes"][image], 3).tolist()}
        theirs = {tuple(row) for row in np.round(np.clip(found["boxes"][image], 0, 1), 3).tolist()}
        assert len(ours & theirs) > 0.8 * len(ours)


def test_float16_halves_the_file_and_moves_scores_a_little(both, converted, images, tmp_path):
    trained = both["softmax"][0]
    whole, half = tflite_file(trained, converted["softmax"], tmp_path / "whole"), tmp_path / "half"
    export(trained, half, format="tflite", quantize="float16")
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    error = np.abs(formats.load(half)(images)["scores"] - formats.load(whole)(images)["scores"])[:, :20]
    assert 0 < error.max() < 0.02


def test_tflite_holds_the_operation_as_task_libraries_want_it(both, kind, converted, tmp_path):
    trained, settings = both[kind][0], {"max_detections": 25, "nms_iou": 0.5}
    model = tflite_file(trained, converted[kind], tmp_path / "model", **settings).read_bytes()
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    graph = tree.subgraphs[0]
    codes = [(code.customCode, code.builtinCode) for code in tree.operatorCodes]
    custom = codes.index((OPERATION.encode(), schema.BuiltinOperator.CUSTOM))
    (last,) = (operator for operator in graph.operators if operator.opcodeIndex == custom)
    options = flexbuffers.Loads(bytes(bytearray(last.customOptions)))
    assert options == {
        "max_detections": 25,
        "max_classes_per_detection": 1,
        "detections_per_class": 25,
        "use_regular_nms": True,
        "nms_score_threshold": pytest.approx(0.05),
        "nms_iou_threshold": pytest.approx(0.5),
        "num_classes": 17 + 3,  # threads pass over a class that nothing is of
        **{"y_scale": 10, "x_scale": 10, "h_scale": 5, "w_scale": 5},
    }
    assert list(graph.outputs) == sorted(graph.outputs)
    assert [place for place in graph.outputs if place in last.outputs] == [graph.outputs[i] for i in (0, 2, 3)]
    assert [graph.tensors[place].shape.tolist() for place in graph.outputs] == [[1, 25, 4], [1, 25], [1, 25], [1]]
    signature = {entry.name.decode(): entry.tensorIndex for entry in tree.signatureDefs[0].outputs}
    assert list(signature.values()) == list(graph.outputs)
    codes, scores, anchors = (graph.tensors[place] for place in last.inputs)
    task = build_task(trained.config, trained.info)
    assert codes.shape.tolist() == [1, len(task.anchors), 4]
    assert scores.shape.tolist()[-1] == 20
    values = np.frombuffer(bytes(bytearray(tree.buffers[anchors.buffer].data)), np.float32).reshape(-1, 4) * SIZE
    corners = np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, :2] + values[:, 2:] / 2], 1)
    np.testing.assert_allclose(corners, task.anchors, atol=1e-4)
    assert tflite.operations(model)[-2:] == [OPERATION, "ADD"]
    assert set(tflite.left_out(model)) <= {OPERATION, "CONCATENATION"}


def table(buffer, place):
    """A flatbuffer's table as {slot: place of its field}."""
    start = place - int.from_bytes(buffer[place : place + 4], "little", signed=True)
    slots = int.from_bytes(buffer[start : start + 2], "little") // 2 - 2
    offsets = np.frombuffer(buffer, "<u2", slots, start + 4)
    return {slot: place + int(offset) for slot, offset in enumerate(offsets) if offset}


def follow(buffer, place):
    return place + int.from_bytes(buffer[place : place + 4], "little")


def vector(buffer, place):
    start = follow(buffer, place)
    return [start + 4 + 4 * index for index in range(int.from_bytes(buffer[start : start + 4], "little"))]


def text(buffer, place):
    start = follow(buffer, place)
    return buffer[start + 4 : start + 4 + int.from_bytes(buffer[start : start + 4], "little")].decode()


def described(model):
    """(results as {name, kind of content, index of a box, type of label file}, groups) of a file's metadata."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    entry = next(entry for entry in tree.metadata if entry.name == b"TFLITE_METADATA")
    buffer = bytes(bytearray(tree.buffers[entry.buffer].data))
    root = table(buffer, follow(buffer, 0))
    (place,) = vector(buffer, root[3])
    network = table(buffer, follow(buffer, place))
    results = []
    for place in vector(buffer, network[3]):
        tensor = table(buffer, follow(buffer, place))
        content = table(buffer, follow(buffer, tensor[3]))
        properties = table(buffer, follow(buffer, content[1]))
        row = {"name": text(buffer, tensor[0]), "content": buffer[content[0]]}
        if 0 in properties and row["content"] == 3:
            row["index"] = [buffer[value] for value in vector(buffer, properties[0])]
            row["form"] = buffer[properties[1]]
            span = table(buffer, follow(buffer, content[2]))
            row["range"] = [buffer[span[slot]] for slot in (0, 1)]
        if 6 in tensor:
            (file,) = vector(buffer, tensor[6])
            file = table(buffer, follow(buffer, file))
            row["file"] = text(buffer, file[0]), buffer[file[2]]
        results.append(row)
    groups = {}
    for place in vector(buffer, network[8]) if 8 in network else ():
        group = table(buffer, follow(buffer, place))
        groups[text(buffer, group[0])] = [text(buffer, name) for name in vector(buffer, group[1])]
    return results, groups


def test_tflite_metadata_are_those_of_an_object_detector(both, kind, converted, tmp_path):
    path = tflite_file(both[kind][0], converted[kind], tmp_path / "model")
    results, groups = described(path.read_bytes())
    assert [row["name"] for row in results] == ["location", "category", "score", "number of detections"]
    assert results[0] == {"name": "location", "content": 3, "index": [1, 0, 3, 2], "form": 1, "range": [2, 2]}
    assert results[1]["file"] == ("labels.txt", 3)
    assert groups == {"detection result": ["location", "category", "score"]}
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == list(CLASSES)
        assert json.loads(archive.read("mnet.json"))["task_settings"] == {"score_threshold": 0.05}


@pytest.fixture(scope="module")
def published(real_data):
    return real_data / "weights" / "detection" / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"


def test_a_published_detector_describes_its_results_as_ours_do(both, converted, tmp_path, published):
    theirs, _ = described(published.read_bytes())
    ours, _ = described(tflite_file(both["sigmoid"][0], converted["sigmoid"], tmp_path / "model").read_bytes())
    for mine, other in zip(ours, theirs, strict=True):
        for field in ("content", "index", "form", "range"):
            assert mine.get(field) == other.get(field)
    assert theirs[1]["file"][1] == ours[1]["file"][1]


# --- What is asked for ---


def test_another_size_has_its_own_anchors(both):
    trained = both["sigmoid"][0]
    graph, about = build_graph(trained, image_size=(160, 128))
    node = next(node for node in graph.nodes if type(node).__name__ == "Detections")
    assert about.image_size == (160, 128)
    assert len(node.anchors) > len(build_task(trained.config, trained.info).anchors)
    assert node.anchors[:, 2].max() > SIZE


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nms": "some"}, "task.nms='some': choose one of 'class', 'all'"),
        ({"nms_iou": 2.0}, "task.nms_iou=2.0: it must be above 0 and at most 1"),
        ({"max_detection": 3}, "unknown config field 'task.max_detection'. Did you mean 'task.max_detections'"),
        ({"max_detections": "many"}, "task.max_detections='many': it must be a whole number"),
    ],
)
def test_settings_that_are_none(both, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        export(both["sigmoid"][0], tmp_path / "model", format="tflite", task=settings)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_none(both, tmp_path):
    with pytest.raises(ValueError, match="unknown output 'logits'; choose one of: detections"):
        export(both["sigmoid"][0], tmp_path / "model", format="onnx", output="logits")


# --- Feature pyramids ---


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [("fpnlite320_v2", 0.35, (128, 144)), ("retinanet384_v4_conv_medium", 0.1, (144, 128))],
)
def test_feature_pyramids(name, width, size):
    """Layers that all maps share, norms that each map has, and sums of maps whose sides are odd."""
    trained = detector(name, **{"model.width": width, "data.image_size": size})
    graph, about = build_graph(trained, output="detections")
    graph, node = in_tflite.without(graph)
    images = random_images(size, 1)
    network, task = build_model(trained.config, trained.info), build_task(trained.config, trained.info)
    run = jax.jit(lambda variables: network.apply(variables, task.eval_inputs({"image": images})))
    outputs = run(trained.variables)
    assert len({each.name for each in graph.nodes}) == len(graph.nodes)
    assert len(node.anchors) == outputs["boxes"].shape[1]
    session = onnxruntime.InferenceSession(onnx.build(graph, about).SerializeToString())
    found = dict(zip(graph.outputs, session.run(list(graph.outputs), {"images": images}), strict=True))
    np.testing.assert_allclose(found["codes"], outputs["boxes"], atol=1e-4 * np.abs(outputs["boxes"]).max())
    np.testing.assert_allclose(found["scores"], jax.nn.sigmoid(outputs["classes"]), atol=1e-4)


@pytest.mark.long
def test_feature_pyramids_in_the_other_formats(tmp_path):
    trained = detector("fpnlite320_v2", **{"model.width": 0.35, "data.image_size": (128, 144)})
    images = random_images((128, 144), 4)
    graph, about = build_graph(trained, quantize="int8")
    expected = jax.jit(lambda images: interpret(graph, images))(images)
    for name, model in (
        ("float", tflite.convert(graph, about)),
        ("int8", int8_model(graph, about, lambda: [images], nearest=True)),
    ):
        (tmp_path / name).write_bytes(model)
        found = formats.load(tmp_path / name)(images)
        assert np.abs(found["scores"] - expected["scores"])[:, :10].max() < (1e-4 if name == "float" else 0.1)


# --- int8 ---


def test_int8_computes_layers_in_whole_numbers_and_detections_in_real_ones(both, images, tmp_path):
    trained = both["sigmoid"][0]
    graph, about = build_graph(trained, quantize="int8")
    path = tmp_path / "model.tflite"
    path.write_bytes(int8_model(graph, about, lambda: [random_images(SIZE, 6, seed=3), images], nearest=True))
    model = path.read_bytes()
    operations = tflite.operations(model)
    assert operations.count("DEQUANTIZE") == 12  # codes and logits of six maps, each with a scale of its own
    assert operations[-3:] == ["PAD", OPERATION, "ADD"]
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)).subgraphs[0]
    convolutions = [operator for operator, name in zip(tree.operators, operations, strict=True) if "CONV_2D" in name]
    assert {tree.tensors[operator.outputs[0]].type for operator in convolutions} == {schema.TensorType.INT8}
    expected = detections(both, "sigmoid", score_threshold=0.05)
    found = formats.load(path)(images)
    results, _ = described(model)
    assert [row["name"] for row in results] == ["location", "category", "score", "number of detections"]
    count = int(min(found["count"].min(), expected["count"].min()))
    assert count > 5
    assert np.abs(found["scores"] - expected["scores"])[:, :count].max() < 0.08


# --- How far a file is from its model ---


def test_a_comparison_of_boxes_counts_what_differs():
    """Two images of 100 x 200 pixels, shown to the network as 128 x 128."""
    crop = np.array([[0, 0, 100, 200, 0, 0, SIZE, SIZE, 0, 100, 200]] * 2, np.int32)

    def results(rows):
        """Of (image, box in pixels of the photo, class, score)."""
        found = {"boxes": np.zeros((2, 4, 4)), "classes": np.zeros((2, 4)), "scores": np.zeros((2, 4))}
        found = {name: values.astype(np.float32) for name, values in found.items()} | {"count": np.zeros(2, np.float32)}
        for image, box, kind, score in rows:
            place = int(found["count"][image])
            found["boxes"][image, place] = np.array(box) / (100, 200, 100, 200)
            found["classes"][image, place], found["scores"][image, place] = kind, score
            found["count"][image] += 1
        return found

    model = results(
        [
            (0, (10, 10, 50, 50), 0, 0.9),
            (0, (60, 60, 90, 190), 1, 0.5),
            (1, (0, 0, 40, 40), 2, 0.4),
            (1, (50, 50, 99, 99), 2, 0.1),
        ]
    )
    file = results(
        [
            (0, (10, 10.5, 50, 50), 0, 0.895),  # the same
            (0, (60, 60, 90, 186), 1, 0.5),  # 4 pixels off
            (1, (-3, 0, 40, 40), 1, 0.4),  # of another class
            (1, (50, 50, 99, 99), 2, 0.35),  # not sure in the model, but there
        ]
    )
    comparison = BoxComparison((SIZE, SIZE))
    comparison.add(model, file, {"crop": crop})
    assert comparison.result() == {
        "num_images": 2,
        "detections_model": 3,
        "detections_file": 4,
        "agreement": pytest.approx(1 / 3),
        "found": pytest.approx(2 / 3),
        "only_in_file": 1,
        "max_box_error": pytest.approx(4, abs=1e-3),
        "mean_box_error": pytest.approx(2.25, abs=1e-3),
        "max_score_error": pytest.approx(0.005, abs=1e-6),
        "mean_score_error": pytest.approx(0.0025, abs=1e-6),
    }
    assert all(len(line.partition(" ")[0]) < 10 for line in comparison.lines())


# --- The commands, with a detector that somebody published ---


def test_commands_write_and_compare(published, real_data, tmp_path, mnet):
    """Photos without labels, whose classes nobody has to name; what `--task` changed is known of the file."""
    path = tmp_path / "model.onnx"
    settings = ("--task", "max_detections=20", "--task", "nms=all")
    code, out, _ = mnet("export", "--weights", published, "--format", "onnx", "--out", path, *settings)
    assert code == 0
    assert "v1 x0.75, 90 classes" in out
    photos = real_data / "weights" / "detection"
    code, out, _ = mnet("verify-export", path, "--weights", published, "--images", photos, "--json")
    assert code == 0
    result = json.loads(out)
    assert (result["data"], result["split"], result["num_images"]) == ("images", None, 3)
    assert result["detections_model"] > 5
    assert (result["agreement"], result["only_in_file"]) == (1, 0)
    assert result["max_box_error"] < 0.05
    assert formats.load(path).about.task_settings == {"score_threshold": 0.05, "max_detections": 20, "nms": "all"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "nms"), "--task takes FIELD=VALUE, such as score_threshold=0.2, got 'nms'"),
        (("--task", "nms=most"), "task.nms='most': choose one of"),
    ],
)
def test_settings_on_the_command_line_that_are_none(published, tmp_path, mnet, arguments, message):
    code, _, err = mnet("export", "--weights", published, "--format", "onnx", "--out", tmp_path / "x", *arguments)
    assert code == 2
    assert message in err


def test_images_go_without_a_set(tmp_path, mnet):
    given = ("--weights", "x", "--images", tmp_path, "--folder", tmp_path)
    code, _, err = mnet("verify-export", tmp_path / "x", *given)
    assert code == 2
    assert "--images are images without labels: leave --data, --folder and --split out" in err


@pytest.mark.long
def test_tflite_of_a_published_detector_on_real_photos(published, real_data, tmp_path, mnet):
    """80 photos of COCO, as many threads as there are: 99 % of the sure detections are the same to a pixel and .01."""
    with tarfile.open(real_data / "coco_tiny.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    (photos,) = tmp_path.glob("*/val2017")
    path = tmp_path / "model.tflite"
    assert mnet("export", "--weights", published, "--format", "tflite", "--out", path)[0] == 0
    code, out, _ = mnet("verify-export", path, "--weights", published, "--images", photos, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["num_images"] == 80
    assert result["detections_model"] > 2000
    assert result["agreement"] >= 0.99
