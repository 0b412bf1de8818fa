"""The depthwise convolution: one function, the best lowering per backend.

The convolution, its input gradient and its kernel gradient are each linear in both arguments, and the derivatives of
each are the other two. So all three are written once per backend, `jax.lax.platform_dependent` picks the backend when
the program is lowered (ahead-of-time compilation for another backend gets that backend's form), and derivatives of any
order in reverse mode stay among these three. Measurements and what was tried: docs/depthwise.md.
The forms: depthwise_cpu.py, depthwise_tpu.py, and depthwise_gpu.py for GPUs and anything else.

Shapes: x [N, H, W, C], kernel [kh, kw, 1, C], y and dy [N, OH, OW, C] with OH = (H + lo + hi - kh) // stride + 1; of a
dilated kernel, whose taps are `dilation` rows and columns apart, kh is (kh - 1) * dilation + 1 there.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models.ops import depthwise_cpu, depthwise_gpu, depthwise_tpu
from mnet_jax.models.ops.windows import Padding, output_size

# What each backend computes: rocm, and whatever else there is, as cuda does.
FORMS: dict[str, dict[str, Callable[..., jax.Array]]] = {
    platform: {name: getattr(module, name) for name in ("convolve", "input_gradient", "kernel_gradient")}
    for platform, module in (("cpu", depthwise_cpu), ("gpu", depthwise_gpu), ("tpu", depthwise_tpu))
}


def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int = 1) -> jax.Array:
    """Returns the depthwise convolution (cross-correlation, channel multiplier 1) with explicit zero padding.

    x [N, H, W, C] and kernel [kh, kw, 1, C] have the same dtype; the result [N, OH, OW, C] has it too. bfloat16 and
    float16 accumulate in float32. Reverse-mode derivatives of any order work; forward mode (`jax.jvp`, `jax.jacfwd`,
    `jax.hessian`) is refused by JAX with a TypeError about custom_vjp: use `jax.jacrev(jax.grad(...))`.
    """
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[2] != 1 or kernel.shape[3] != x.shape[3]:
        raise ValueError(
            f"depthwise_conv got x {x.shape} and kernel {kernel.shape}; "
            "allowed: x [N, H, W, C] and kernel [kh, kw, 1, C] with the same C"
        )
    if x.dtype != kernel.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"depthwise_conv got x of {x.dtype} and kernel of {kernel.dtype}; "
            "allowed: the same floating type for both, cast one of them"
        )
    if stride not in (1, 2):
        raise ValueError(f"depthwise_conv got stride {stride!r}; allowed: 1 or 2")
    if dilation < 1 or (dilation > 1 and stride > 1):
        raise ValueError(
            f"depthwise_conv got stride {stride} and dilation {dilation!r}; allowed: dilation from 1, with stride 1"
        )
    padding = tuple((int(low), int(high)) for low, high in padding)
    if min(output_size(x.shape[1:3], kernel.shape[:2], stride, padding, dilation)) < 1:
        raise ValueError(
            f"depthwise_conv got images of {x.shape[1:3]} with padding {padding}, smaller than the kernel "
            f"{kernel.shape[:2]}; give larger images or more padding"
        )
    return _convolve(x, kernel, int(stride), padding, int(dilation))


# The three bilinear functions. Each derivative rule below is the transpose with respect to one argument.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int) -> jax.Array:
    return _dispatch("convolve", x, kernel, (stride, padding, dilation))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, dilation: int, image: tuple[int, int]
) -> jax.Array:
    """Returns dx [N, H, W, C], the transpose of the convolution in x; image = (H, W)."""
    return _dispatch("input_gradient", dy, kernel, (stride, padding, image, dilation))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, dilation: int, window: tuple[int, int]
) -> jax.Array:
    """Returns dkernel [kh, kw, 1, C], the transpose of the convolution in the kernel; window = (kh, kw)."""
    return _dispatch("kernel_gradient", x, dy, (stride, padding, window, dilation))


_convolve.defvjp(
    lambda x, kernel, *how: (_convolve(x, kernel, *how), (x, kernel)),
    lambda stride, padding, dilation, saved, dy: (
        _input_gradient(dy, saved[1], stride, padding, dilation, saved[0].shape[1:3]),
        _kernel_gradient(saved[0], dy, stride, padding, dilation, saved[1].shape[:2]),
    ),
)
_input_gradient.defvjp(
    lambda dy, kernel, *how: (_input_gradient(dy, kernel, *how), (dy, kernel)),
    lambda stride, padding, dilation, image, saved, ddx: (
        _convolve(ddx, saved[1], stride, padding, dilation),
        _kernel_gradient(ddx, saved[0], stride, padding, dilation, saved[1].shape[:2]),
    ),
)
_kernel_gradient.defvjp(
    lambda x, dy, *how: (_kernel_gradient(x, dy, *how), (x, dy)),
    lambda stride, padding, dilation, window, saved, ddk: (
        _input_gradient(saved[1], ddk, stride, padding, dilation, saved[0].shape[1:3]),
        _convolve(saved[0], ddk, stride, padding, dilation),
    ),
)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _dispatch(name: str, a: jax.Array, b: jax.Array, options: tuple) -> jax.Array:
    """Calls one of the three functions in the form of the backend that the program is lowered for."""
    forms = {platform: functools.partial(_call, FORMS[platform][name], options) for platform in ("cpu", "tpu")}
    return lax.platform_dependent(a, b, **forms, default=functools.partial(_call, FORMS["gpu"][name], options))


def _call(form: Callable[..., jax.Array], options: tuple, a: jax.Array, b: jax.Array) -> jax.Array:
    return form(a, b, *options)
