"""The pointwise layer: both forms and their gradients against float64 NumPy, and the form each backend gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnet_jax.models.ops import pointwise
from mnet_jax.models.ops.pointwise import pointwise_conv

SHAPES = [((2, 5, 3, 4), 6), ((1, 1, 1, 3), 1), ((3, 7), 2), ((0, 2, 2, 4), 3)]
FORMS = {"multiply": pointwise._multiply, "convolve": pointwise._convolve}


def arrays(shape, features):
    rng = np.random.default_rng(0)
    return (rng.normal(size=size) for size in (shape, (shape[-1], features), (*shape[:-1], features)))


def rows(x):
    return x.reshape(-1, x.shape[-1])


@pytest.mark.parametrize(("shape", "features"), SHAPES)
def test_value_and_gradients(shape, features):
    x, kernel, dy = arrays(shape, features)
    y, back = jax.vjp(pointwise_conv, jnp.float32(x), jnp.float32(kernel))
    dx, dkernel = back(jnp.float32(dy))
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, dy @ kernel.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, rows(x).T @ rows(dy), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_on_any_backend(form):
    x, kernel, dy = arrays((2, 5, 3, 4), 6)
    wide = tuple(jnp.float32(a) for a in (x, kernel, dy))
    np.testing.assert_allclose(FORMS[form](*wide[:2]), x @ kernel, rtol=1e-5, atol=1e-5)
    dx, dkernel = pointwise.gradients(FORMS[form], *wide)
    np.testing.assert_allclose(dx, dy @ kernel.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, rows(x).T @ rows(dy), rtol=1e-5, atol=1e-5)


def test_wide_results_are_not_rounded():
    x, kernel, _ = (jnp.bfloat16(a) for a in arrays((2, 5, 3, 64), 6))
    exact = np.float64(x) @ np.float64(kernel)
    for result in (pointwise_conv(x, kernel, True), pointwise._convolve(x, kernel, wide=True)):
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, exact, rtol=1e-4, atol=1e-4)
    assert pointwise_conv(x, kernel).dtype == jnp.bfloat16
    dx, dkernel = jax.grad(lambda x, kernel: pointwise_conv(x, kernel, True).sum(), (0, 1))(x, kernel)
    np.testing.assert_allclose(np.float64(dx[0, 0, 0]), np.float64(kernel).sum(1), rtol=2e-2, atol=2e-2)
    assert dkernel.dtype == jnp.bfloat16


def test_second_derivative():
    """Of sum((x k)^2) along the kernel: 2 x'x for each feature."""
    x, kernel, _ = arrays((2, 3, 2, 3), 1)
    hessian = jax.jacrev(jax.grad(lambda k: jnp.square(pointwise_conv(jnp.float32(x), k)).sum()))(jnp.float32(kernel))
    np.testing.assert_allclose(hessian[:, 0, :, 0], 2 * rows(x).T @ rows(x), rtol=1e-4)


@pytest.mark.parametrize("size", [(2, 6, 5, 16), (8, 16)])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_each_backend_gets_its_own_form(platform, size):
    """Lowered ahead of time: convolutions for maps on TPU, products elsewhere, forward and backward."""

    def loss(x, kernel):
        return jnp.square(pointwise_conv(x, kernel)).sum()

    shapes = jax.ShapeDtypeStruct(size, jnp.bfloat16), jax.ShapeDtypeStruct((16, 24), jnp.bfloat16)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    text = step.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    counts = text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")
    assert counts == ((3, 0) if platform == "tpu" and len(size) == 4 else (0, 3))
