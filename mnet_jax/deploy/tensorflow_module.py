"""A graph as a TensorFlow function, in the operations that TFLite's converter turns into one kernel each.

Written out instead of converted from JAX (jax2tf): the graph that comes out holds no transposes, no reshapes between
layers, no mean as a sum (which int8 kernels lack), and no lowering that is meant for XLA.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.detections.in_tensorflow import detect


def make_function(graph: g.Graph, batch_size: int | None) -> tf.types.experimental.ConcreteFunction:
    """Returns the graph as a traced function: images [batch_size, *graph.input_shape] -> its results by name.

    `batch_size` None leaves the batch free. Weights are constants.
    """
    signature = tf.TensorSpec((batch_size, *graph.input_shape), graph.input_dtype, name=g.INPUT)

    @tf.autograph.experimental.do_not_convert
    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        values = {g.INPUT: images}
        for node in graph.nodes:
            with tf.name_scope(node.name.replace("/", "_")):
                values[node.name] = _run(node, *(values[name] for name in node.inputs))
        return {name: values[node] for name, node in graph.outputs.items()}

    return tf.function(run, input_signature=[signature]).get_concrete_function()


def _run(node: g.Node, *inputs: Any) -> Any:
    """Returns a node's result, or, where it has several, these by name."""
    x = inputs[0]
    match node:
        case g.Pixels():
            return tf.cast(x, tf.float32) - node.mean
        case g.Conv():
            return _conv(node, x)
        case g.Mean():
            return tf.reduce_mean(x, (1, 2), keepdims=True)
        case g.Multiply():
            return x * inputs[1]
        case g.Add():
            return x + inputs[1]
        case g.WindowMean():
            return tf.nn.avg_pool2d(x, node.window, node.strides, "VALID")
        case g.Channels():
            return tf.concat(inputs, -1)
        case g.Resize():
            corners = node.align_corners
            return tf.raw_ops.ResizeBilinear(
                images=x, size=node.shape[:2], align_corners=corners, half_pixel_centers=not corners
            )
        case g.Largest():
            return tf.argmax(x, -1, output_type=tf.int32)
        case g.Twice():
            x = tf.raw_ops.ResizeNearestNeighbor(images=x, size=(2 * x.shape[1], 2 * x.shape[2]))
            return x[:, : node.shape[0], : node.shape[1]]
        case g.RmsNorm():
            return _rms_norm(node, x)
        case g.Attention():
            return _attend(node, *inputs)
        case g.Reshape():
            return tf.reshape(x, (-1, *node.shape))
        case g.Concat():
            return tf.concat(inputs, 1)
        case g.Softmax():
            return tf.nn.softmax(x)
        case g.Sigmoid():
            return tf.sigmoid(x)
        case g.Detections():
            return detect(node, *inputs)
        case g.Part():
            return x[node.part]
    raise g.no_form(node, "TensorFlow")


def _conv(node: g.Conv, x: tf.Tensor) -> tf.Tensor:
    height, width = x.shape[1:3]
    size, kernel = node.kernel.shape[0], node.kernel
    if node.padding == ((0, 0), (0, 0)):
        padding = "VALID"
    elif node.padding == tuple(g.same_padding(side, size, node.stride, node.dilation) for side in (height, width)):
        padding = "SAME"
    else:
        x, padding = tf.pad(x, ((0, 0), *node.padding, (0, 0))), "VALID"
    if node.depthwise:
        kernel = np.swapaxes(kernel, 2, 3)  # [k, k, C, 1]
        strides, rates = (1, node.stride, node.stride, 1), (node.dilation, node.dilation)
        x = tf.nn.depthwise_conv2d(x, kernel, strides, padding, dilations=rates)
    elif node.groups == 1:
        x = tf.nn.conv2d(x, kernel, node.stride, padding, dilations=node.dilation)
    else:  # for any kernels; a plain layer must have no SPLIT, which XNNPACK leaves out
        parts = zip(tf.split(x, node.groups, -1), np.split(kernel, node.groups, -1), strict=True)
        parts = [tf.nn.conv2d(part, taps, node.stride, padding, dilations=node.dilation) for part, taps in parts]
        x = tf.concat(parts, -1)
    x = tf.nn.bias_add(x, node.bias)
    return x if node.activation is None else ACTIVATIONS[node.activation](x)


def _hard_swish(x: tf.Tensor) -> tf.Tensor:
    return x * tf.nn.relu6(x + 3.0) * np.float32(1 / 6)  # the form that the converter knows as HARD_SWISH


def _rms_norm(node: g.RmsNorm, x: tf.Tensor) -> tf.Tensor:
    x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + np.float32(node.epsilon)) * node.scale
    return x if node.activation is None else ACTIVATIONS[node.activation](x)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=False)


def _gelu_tanh(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.gelu(x, approximate=True)


ACTIVATIONS = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_swish": _hard_swish,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}


def _attend(node: g.Attention, query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    features = key.shape[-1]
    query = tf.reshape(query, (-1, query.shape[1] * query.shape[2] * node.heads, features))
    key, value = (tf.reshape(x, (-1, x.shape[1] * x.shape[2], features)) for x in (key, value))
    weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True))
    return tf.reshape(tf.matmul(weights, value), (-1, *node.shape))
