"""The dense convolution and its gradients, first and second, in all forms against XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from mnet_jax.models.ops.conv import dense_conv


def plain(x, kernel, stride, padding, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def arrays(shape, window, features, dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = shape, (*window, shape[3], features)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "window", "features", "stride", "padding", "dilation"),
    [
        ((2, 9, 6, 3), (3, 3), 32, 2, ((1, 1), (0, 1)), 1),
        ((2, 8, 8, 3), (3, 3), 16, 2, ((0, 1), (0, 1)), 1),
        ((1, 5, 7, 8), (5, 3), 32, 1, ((2, 2), (1, 1)), 1),
        ((2, 8, 9, 8), (3, 5), 5, 2, ((1, 0), (2, 3)), 1),
        ((2, 7, 4, 1), (5, 7), 40, 1, ((0, 4), (3, 3)), 1),
        ((2, 9, 7, 8), (3, 3), 16, 1, ((6, 6), (6, 6)), 6),
        ((1, 8, 9, 3), (3, 2), 24, 1, ((2, 1), (0, 3)), 2),
        ((1, 6, 5, 12), (1, 2), 4, 2, ((0, 0), (-1, 2)), 1),
    ],
)
def test_gradients(shape, window, features, stride, padding, dilation, dtype):
    x, kernel = arrays(shape, window, features, dtype)

    def gradients(convolve, dtype):
        def energy(x, kernel):
            return (convolve(x, kernel, stride, padding, dilation).astype(jnp.float32) ** 2).sum()

        return jax.jit(jax.value_and_grad(energy, (0, 1)))(x.astype(dtype), kernel.astype(dtype))

    value, ours = gradients(dense_conv, dtype)
    expected, theirs = gradients(plain, "float32")
    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(value, expected, rtol=tolerance)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), b, atol=tolerance * float(jnp.abs(b).max()))


def by_taps(x, kernel, stride, padding, dilation):
    """The same, by a product a tap: of a dilated kernel XLA's own has no second derivatives (it aborts)."""
    (height, width), (rows, columns) = kernel.shape[:2], padding
    x = jnp.pad(x, ((0, 0), rows, columns, (0, 0)))
    out = [(n - (k - 1) * dilation - 1) // stride + 1 for n, k in zip(x.shape[1:3], (height, width), strict=True)]
    return sum(
        x[
            :,
            i * dilation : i * dilation + (out[0] - 1) * stride + 1 : stride,
            j * dilation : j * dilation + (out[1] - 1) * stride + 1 : stride,
        ]
        @ kernel[i, j]
        for i in range(height)
        for j in range(width)
    )


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 2)])
def test_second_derivatives(stride, dilation):
    x, kernel = arrays((1, 5, 4, 2), (3, 3), 32)

    def curvature(convolve, x, kernel):
        def energy(x, kernel):
            return (convolve(x, kernel, stride, ((2, 1), (1, 2)), dilation) ** 3).sum()

        return sum((jnp.sin(g / 100) ** 2).sum() for g in jax.grad(energy, (0, 1))(x, kernel))

    forms = dense_conv, by_taps
    ours, theirs = (jax.jit(jax.grad(functools.partial(curvature, c), (0, 1)))(x, kernel) for c in forms)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    ("platform", "channels", "convolutions", "spread"),
    # Forward (the loop over few channels is none), the input's gradient (one a phase of stride 2 on CPU), the kernel's.
    [("cpu", 3, 5, 5), ("cpu", 16, 6, 6), ("tpu", 3, 3, 0), ("cuda", 16, 3, 0)],
)
def test_each_backend_gets_its_own_form(platform, channels, convolutions, spread):
    """Lowered ahead of time: on CPU rows of zeros between the input's, elsewhere XLA's own forms."""

    def loss(x, kernel):
        return (dense_conv(x, kernel, 2, ((0, 1), (0, 1))) ** 2).sum()

    shapes = jax.ShapeDtypeStruct((2, 8, 8, channels), "float32"), jax.ShapeDtypeStruct((3, 3, channels, 24), "float32")
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    text = step.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert (text.count("stablehlo.convolution"), text.count("lhs_dilate = [2, 1]")) == (convolutions, spread)
