"""Runs a graph in JAX: a pure function, for StableHLO export, for checks, and to observe what flows through it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.deploy import graph as g
from mnet_jax.deploy.detections.in_jax import detect
from mnet_jax.models.layers import ACTIVATIONS
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.models.ops.depthwise import depthwise_conv


def interpret(
    graph: g.Graph, images: jax.Array, observe: Callable[[g.Node, jax.Array], jax.Array] | None = None
) -> jax.Array | dict[str, jax.Array]:
    """Returns the graph's results, float32 [N, ...], for images [N, *graph.input_shape] of its dtype.

    One result comes as it is, several come by name. `observe` is called with every node and its result, and returns
    what the nodes after it get.
    """
    values = {g.INPUT: images}
    for node in graph.nodes:
        if type(node) not in FORMS:
            raise g.no_form(node, "the interpreter in JAX")
        value = FORMS[type(node)](node, *(values[name] for name in node.inputs))
        values[node.name] = value if observe is None else observe(node, value)
    return g.results({name: values[node] for name, node in graph.outputs.items()})


def _conv(node: g.Conv, x: jax.Array) -> jax.Array:
    if node.depthwise:
        x = depthwise_conv(x, jnp.asarray(node.kernel), node.stride, node.padding, node.dilation)
    elif node.kernel.shape[:2] == (1, 1):
        x = x @ node.kernel[0, 0]
    else:
        strides, layout = (node.stride, node.stride), ("NHWC", "HWIO", "NHWC")
        rates, kernel = (node.dilation, node.dilation), jnp.asarray(node.kernel)
        x = lax.conv_general_dilated(
            x,
            kernel,
            strides,
            node.padding,
            rhs_dilation=rates,
            dimension_numbers=layout,
            feature_group_count=node.groups,
        )
    x = x + node.bias.reshape(1, 1, 1, -1)
    return x if node.activation is None else ACTIVATIONS[node.activation](x)


def _rms_norm(node: g.RmsNorm, x: jax.Array) -> jax.Array:
    x = x * lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + node.epsilon) * node.scale.reshape(1, 1, 1, -1)
    return x if node.activation is None else ACTIVATIONS[node.activation](x)


def _window_mean(node: g.WindowMean, x: jax.Array) -> jax.Array:
    total = lax.reduce_window(x, 0.0, lax.add, (1, *node.window, 1), (1, *node.strides, 1), "VALID")
    return total / (node.window[0] * node.window[1])


def _attend(node: g.Attention, query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    batch, features = query.shape[0], key.shape[-1]
    rows = query.shape[1] * query.shape[2] * node.heads
    query = query.reshape(batch, rows, features)
    key, value = (x.reshape(batch, x.shape[1] * x.shape[2], features) for x in (key, value))
    weights = jax.nn.softmax(jnp.einsum("nld,nmd->nlm", query, key))
    return jnp.einsum("nlm,nmd->nld", weights, value).reshape(batch, *node.shape)


FORMS: dict[type[g.Node], Callable[..., Any]] = {
    g.Pixels: lambda node, x: x.astype(jnp.float32) - node.mean.reshape(1, 1, 1, 3),
    g.Conv: _conv,
    g.Mean: lambda node, x: x.mean((1, 2), keepdims=True),
    g.Multiply: lambda node, x, y: x * y,
    g.Add: lambda node, x, y: x + y,
    g.WindowMean: _window_mean,
    g.Channels: lambda node, *parts: jnp.concatenate(parts, axis=-1),
    g.Resize: lambda node, x: upsample(x, node.shape[:2], align_corners=node.align_corners),
    g.Largest: lambda node, x: jnp.argmax(x, -1).astype(jnp.int32),
    g.Twice: lambda node, x: x.repeat(2, 1).repeat(2, 2)[:, : node.shape[0], : node.shape[1]],
    g.RmsNorm: _rms_norm,
    g.Gate: lambda node, x: jnp.clip(x + 3.0, 0.0, 6.0),
    g.Attention: _attend,
    g.Reshape: lambda node, x: x.reshape(x.shape[0], *node.shape),
    g.Concat: lambda node, *parts: jnp.concatenate(parts, axis=1),
    g.Softmax: lambda node, x: jax.nn.softmax(x),
    g.Sigmoid: lambda node, x: jax.nn.sigmoid(x),
    g.Detections: detect,
    g.Part: lambda node, parts: parts[node.part],
}
