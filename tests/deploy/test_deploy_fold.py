"""The folded graph is the network: the same logits, with nothing of training left."""

import jax
import numpy as np
import pytest
from networks import MEAN, STD, fold, normalized, random_images, random_variables

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.interpret import interpret
from mnet_jax.tasks.classification.network import create_model

# One network a kind of block; odd and unequal sides are where the two paddings differ most. Two of them have the kinds
# that most networks are made of.
CASES = [
    ("v1", "symmetric", (45, 64)),
    ("v3_small", "same", (64, 45)),
    ("v4_conv_small", "symmetric", (64, 64)),
    ("v4_hybrid_medium", "same", (64, 64)),
    ("v3_rw", "symmetric", (45, 64)),
    ("v4_conv_aa_medium", "symmetric", (45, 64)),
    ("v4_conv_blur_medium", "same", (45, 64)),
    ("edgetpu_v2_xs", "same", (64, 45)),
]


@pytest.mark.parametrize(
    ("name", "padding", "size"),
    [pytest.param(*case, marks=() if case[0] in ("v3_small", "v4_conv_small") else pytest.mark.long) for case in CASES],
)
def test_logits_are_those_of_the_unfolded_network(name, padding, size):
    width = 1.0 if name.startswith("edgetpu") else 0.25  # narrower ones have no groups
    model = create_model(name, num_classes=5, width=width, padding=padding)
    variables, images = random_variables(model.plan), random_images(size)
    expected = np.asarray(jax.jit(model.apply)(variables, normalized(images)))
    graph = fold(model.plan, variables, image_size=size, input="uint8", mean=MEAN, std=STD)
    found = np.asarray(jax.jit(lambda images: interpret(graph, images))(images))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.001 * np.abs(expected).max()  # and they depend on the image


def test_a_graph_holds_only_what_inference_needs():
    plan = create_model("v4_hybrid_medium", width=0.25).plan
    graph = fold(plan, random_variables(plan), image_size=64, output="probabilities")
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    seen = {g.INPUT}
    for node in graph.nodes:
        assert seen.issuperset(node.inputs)
        seen.add(node.name)
    assert all(graph.readers(name) for name in names[:-1])
    norms = [node for node in graph.nodes if node.name.endswith("/norm")]
    assert [node.shape[:2] for node in norms] == [(4, 4)] * 4  # only where keys and values come from padded maps
    assert graph.outputs == {"probabilities": names[-1]}
    assert isinstance(graph.nodes[-1], g.Softmax)


def test_shapes_in_the_graph_are_those_of_the_results():
    plan = create_model("v4_hybrid_medium", width=0.25).plan
    graph = fold(plan, random_variables(plan), image_size=(64, 96))
    shapes = {}

    def observe(node, value):
        shapes[node.name] = value.shape[1:]
        return value

    jax.eval_shape(lambda images: interpret(graph, images, observe), jax.ShapeDtypeStruct((2, 64, 96, 3), np.float32))
    assert shapes == {node.name: node.shape for node in graph.nodes}


def test_symmetric_padding_reaches_no_further_than_the_last_window():
    plan = create_model("v1", width=0.25, padding="symmetric").plan
    stem = fold(plan, random_variables(plan), image_size=64).nodes[0]
    assert stem.padding == ((1, 0), (1, 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 31}, "at least 32 pixels"),
        ({"image_size": (64, 64, 3)}, "or two, got"),
        ({"input": "int8"}, "unknown input 'int8'; choose one of: uint8, float"),
        ({"output": "labels"}, "unknown output 'labels'; choose one of: probabilities, logits"),
    ],
)
def test_what_cannot_be_folded_is_refused(arguments, message):
    plan = create_model("v1", width=0.25).plan
    with pytest.raises(ValueError, match=message):
        fold(plan, random_variables(plan), **arguments)


def test_a_convolution_in_groups_is_the_same_in_every_form():
    """Of 6 channels in 3 groups: NumPy's product of each piece, the graph in JAX, onnxruntime, TensorFlow, int8's."""
    from mnet_jax.deploy import onnx, tensorflow_module
    from mnet_jax.deploy.int8.rewrite import _one_group

    draw = np.random.default_rng(0)
    images = draw.normal(size=(2, 5, 4, 6)).astype(np.float32)
    kernel, bias = draw.normal(size=(3, 3, 2, 12)).astype(np.float32), draw.normal(size=12).astype(np.float32)
    conv = g.Conv(
        name="conv", inputs=(g.INPUT,), shape=(5, 4, 12), kernel=kernel, bias=bias, padding=((1, 1), (1, 1)), groups=3
    )
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.tile(bias, (2, 5, 4, 1))
    for row, column, group in np.ndindex(3, 3, 3):
        patch = padded[:, row : row + 5, column : column + 4, 2 * group : 2 * group + 2]
        expected[..., 4 * group : 4 * group + 4] += patch @ kernel[row, column, :, 4 * group : 4 * group + 4]

    def graph(node):
        return g.Graph(input_shape=(5, 4, 6), input_dtype="float32", nodes=(node,), outputs={"map": "conv"})

    import onnxruntime
    import tensorflow
    from networks import about

    plan = create_model("v1", num_classes=2, width=0.25).plan
    model = onnx.build(graph(conv), about(plan, 64)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=("CPUExecutionProvider",))
    function = tensorflow_module.make_function(graph(conv), None)
    forms = {
        "JAX": interpret(graph(conv), images),
        "one group": interpret(graph(_one_group(conv)), images),
        "ONNX": session.run(["map"], {g.INPUT: images})[0],
        "TensorFlow": function(tensorflow.constant(images))["map"],
    }
    for name, found in forms.items():
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)
