"""The pointwise (1 x 1) layer: a product of matrices, on TPU a convolution.

On CPU the product is 1.5 to 2 times faster than the convolution, and has no transposed copies as the gradient of a
product of four axes has (10 % of v3_small's step). On TPU the two are one program where the images of a chip are a
multiple of 128. Elsewhere the rows of the product are not how the maps lie in memory, and XLA copies every map into
another layout and back: the stem and first three blocks of v3_large with 64 images need 25.0 M estimated cycles as
products and 14.4 M as convolutions (docs/tpu.md).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def pointwise_conv(x: jax.Array, kernel: jax.Array, wide: bool = False) -> jax.Array:
    """Returns x [..., I] @ kernel [I, O], in x's dtype or (`wide`) float32; reverse-mode derivatives of any order."""
    return _of_map(x, kernel, wide) if x.ndim == 4 else _multiply(x, kernel, wide)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _of_map(x: jax.Array, kernel: jax.Array, wide: bool) -> jax.Array:
    tpu, other = (functools.partial(form, wide=wide) for form in (_convolve, _multiply))
    return lax.platform_dependent(x, kernel, tpu=tpu, default=other)


def _forward(x: jax.Array, kernel: jax.Array, wide: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _of_map(x, kernel, wide), (x, kernel)


def _backward(wide: bool, saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    tpu, other = (functools.partial(gradients, form) for form in (_convolve, _multiply))
    return lax.platform_dependent(*saved, dy.astype(saved[0].dtype), tpu=tpu, default=other)


_of_map.defvjp(_forward, _backward)


def _convolve(x: jax.Array, kernel: jax.Array, wide: bool = False) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel[None, None],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.float32 if wide else None,
    )


def _multiply(x: jax.Array, kernel: jax.Array, wide: bool = False) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    y = jnp.matmul(rows, kernel, preferred_element_type=jnp.float32 if wide else None)
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def gradients(
    form: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradients of x and of the kernel, as reverse mode derives them from this form."""
    (dx,) = jax.linear_transpose(lambda x: form(x, kernel), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: form(x, kernel), kernel)(dy)
    return dx, dkernel
