"""The depthwise convolution: one function, the best lowering per backend.

The convolution, its input gradient and its kernel gradient are each linear in both arguments, and the derivatives of
each are the other two. So all three are written once per backend, `jax.lax.platform_dependent` picks the backend when
the program is lowered (ahead-of-time compilation for another backend gets that backend's form), and derivatives of any
order in reverse mode stay among these three. Measurements and what was tried: docs/depthwise.md.

Shapes: x [N, H, W, C], kernel [kh, kw, 1, C], y and dy [N, OH, OW, C] with OH = (H + lo + hi - kh) // stride + 1.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Padding = tuple[tuple[int, int], tuple[int, int]]

# Channels a group on TPU (block-diagonal kernels): 8 beat 1, 4, 16, 32 and C in v3_large's layers (docs/depthwise.md).
TPU_GROUP = 8
# CPU kernel gradient: rows (or images) summed in registers, and taps that share one loop. 8 x 10 multiply-adds are
# about what LLVM still unrolls; beyond that it stops vectorising and the gradient is five times slower.
CPU_CHAIN = 8
CPU_TAPS = 10


def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Depthwise convolution (cross-correlation, channel multiplier 1) with explicit zero padding.

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
    padding = tuple((int(low), int(high)) for low, high in padding)
    if min(output_size(x.shape[1:3], kernel.shape[:2], stride, padding)) < 1:
        raise ValueError(
            f"depthwise_conv got images of {x.shape[1:3]} with padding {padding}, smaller than the kernel "
            f"{kernel.shape[:2]}; give larger images or more padding"
        )
    return _convolve(x, kernel, int(stride), padding)


def output_size(image: tuple[int, int], kernel: tuple[int, int], stride: int, padding: Padding) -> tuple[int, int]:
    """(OH, OW) of a convolution over an image (H, W)."""
    return tuple((i + low + high - k) // stride + 1 for i, k, (low, high) in zip(image, kernel, padding, strict=True))


# The three bilinear functions. Each derivative rule below is the transpose with respect to one argument.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return _dispatch("convolve", x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    """dx [N, H, W, C], the transpose of the convolution in x; image = (H, W)."""
    return _dispatch("input_gradient", dy, kernel, stride, padding, image)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _kernel_gradient(x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int]) -> jax.Array:
    """dkernel [kh, kw, 1, C], the transpose of the convolution in the kernel; window = (kh, kw)."""
    return _dispatch("kernel_gradient", x, dy, stride, padding, window)


_convolve.defvjp(
    lambda x, kernel, stride, padding: (_convolve(x, kernel, stride, padding), (x, kernel)),
    lambda stride, padding, saved, dy: (
        _input_gradient(dy, saved[1], stride, padding, saved[0].shape[1:3]),
        _kernel_gradient(saved[0], dy, stride, padding, saved[1].shape[:2]),
    ),
)
_input_gradient.defvjp(
    lambda dy, kernel, stride, padding, image: (_input_gradient(dy, kernel, stride, padding, image), (dy, kernel)),
    lambda stride, padding, image, saved, ddx: (
        _convolve(ddx, saved[1], stride, padding),
        _kernel_gradient(ddx, saved[0], stride, padding, saved[1].shape[:2]),
    ),
)
_kernel_gradient.defvjp(
    lambda x, dy, stride, padding, window: (_kernel_gradient(x, dy, stride, padding, window), (x, dy)),
    lambda stride, padding, window, saved, ddk: (
        _input_gradient(saved[1], ddk, stride, padding, saved[0].shape[1:3]),
        _convolve(saved[0], ddk, stride, padding),
    ),
)


@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _dispatch(
    name: str, a: jax.Array, b: jax.Array, stride: int, padding: Padding, size: tuple[int, int] = ()
) -> jax.Array:
    """One of the three functions in the form of the backend that the program is lowered for."""
    options = (stride, padding, size) if size else (stride, padding)
    forms = {platform: functools.partial(_call, FORMS[platform][name], options) for platform in ("cpu", "tpu")}
    return lax.platform_dependent(a, b, **forms, default=functools.partial(_call, FORMS["gpu"][name], options))


def _call(form: Callable[..., jax.Array], options: tuple, a: jax.Array, b: jax.Array) -> jax.Array:
    return form(a, b, *options)


# Any backend: XLA's own convolution, with `group` channels a group (1 = depthwise as everyone writes it).


def grouped_convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, group: int = 1) -> jax.Array:
    """The convolution as `lax.conv_general_dilated` with block-diagonal kernels of `group` channels; C % group == 0."""
    return lax.conv_general_dilated(
        x,
        _block_diagonal(kernel, group),
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3] // group,
    )


def grouped_input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int], group: int = 1
) -> jax.Array:
    """The input gradient as a convolution of the dilated dy with the flipped kernel, in groups of `group` channels."""
    back = []
    for size, k, out, (low, _) in zip(image, kernel.shape[:2], dy.shape[1:3], padding, strict=True):
        back.append((k - 1 - low, size + low - (out - 1) * stride - 1))
    return lax.conv_general_dilated(
        dy,
        _block_diagonal(kernel[::-1, ::-1], group),  # symmetric within a group: its transpose is itself
        (1, 1),
        back,
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=dy.shape[3] // group,
    )


def grouped_kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int], group: int = 1
) -> jax.Array:
    """The kernel gradient as XLA's transpose of the grouped convolution: the diagonal of its blocks."""
    convolve = functools.partial(grouped_convolve, stride=stride, padding=padding, group=group)
    zeros = jax.ShapeDtypeStruct((*window, 1, x.shape[3]), x.dtype)
    (gradient,) = jax.linear_transpose(lambda kernel: convolve(x, kernel), zeros)(dy)
    return gradient


def _block_diagonal(kernel: jax.Array, group: int) -> jax.Array:
    """[kh, kw, 1, C] -> [kh, kw, group, C]: zero but where the input channel of the group is the output's own."""
    if group == 1:
        return kernel
    channels = kernel.shape[3]
    own = jnp.arange(channels)[None, :] % group == jnp.arange(group)[:, None]
    return jnp.where(own[None, None], kernel, jnp.zeros((), kernel.dtype))


# TPU


def tpu_convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    return grouped_convolve(x, kernel, stride, padding, _tpu_group(x.shape[3]))


def tpu_input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    return grouped_input_gradient(dy, kernel, stride, padding, image, _tpu_group(dy.shape[3]))


def tpu_kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int]
) -> jax.Array:
    return grouped_kernel_gradient(x, dy, stride, padding, window, 1 if stride == 1 else _tpu_group(x.shape[3]))


def _tpu_group(channels: int) -> int:
    """Channels a group; make_divisible keeps the family's widths multiples of 8, anything else takes the plain form."""
    return TPU_GROUP if channels % TPU_GROUP == 0 else 1


# CPU: XLA:CPU has no fast grouped convolution, but vectorises element-wise loops over the channels and splits them over
# its threads.


def cpu_convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """kh * kw shifted multiply-adds in one fused loop."""
    kh, kw = kernel.shape[:2]
    out = output_size(x.shape[1:3], (kh, kw), stride, padding)
    padded = _padded(x, padding)
    kernel = kernel.astype(padded.dtype)
    taps = [_shifted(padded, i, j, stride, out) * kernel[None, None, i, j] for i in range(kh) for j in range(kw)]
    return sum(taps[1:], start=taps[0]).astype(x.dtype)


def cpu_input_gradient(
    dy: jax.Array, kernel: jax.Array, stride: int, padding: Padding, image: tuple[int, int]
) -> jax.Array:
    """One small convolution a phase (polyphase form), so that no multiply-add meets a zero of a dilated dy.

    Row stride * a + p of the padded image receives dy[a - m] * kernel[p + stride * m] for every m; columns likewise.
    """
    kh, kw = kernel.shape[:2]
    (low_h, _), (low_w, _) = padding
    height, width = -(-(image[0] + low_h) // stride), -(-(image[1] + low_w) // stride)
    (reach_h, _), (reach_w, _) = around = _around(dy.shape[1:3], (kh, kw), stride, padding, image)
    padded = _padded(dy, around)
    kernel = kernel.astype(padded.dtype)

    def phase(p: int, q: int) -> jax.Array:
        total = jnp.zeros((dy.shape[0], height, width, dy.shape[3]), padded.dtype)
        for i in range(p, kh, stride):
            for j in range(q, kw, stride):
                seen = _shifted(padded, reach_h - i // stride, reach_w - j // stride, 1, (height, width))
                total += seen * kernel[None, None, i, j]
        return total.astype(dy.dtype)

    rows = [jnp.stack([phase(p, q) for q in range(stride)], axis=3) for p in range(stride)]
    dx = jnp.stack(rows, axis=2).reshape(dy.shape[0], height * stride, width * stride, dy.shape[3])
    crop = ((-low_h, low_h + image[0] - dx.shape[1]), (-low_w, low_w + image[1] - dx.shape[2]))
    return _pad(dx, crop)


def cpu_kernel_gradient(
    x: jax.Array, dy: jax.Array, stride: int, padding: Padding, window: tuple[int, int]
) -> jax.Array:
    """Products of x and dy summed over a few rows (or images) in registers, then small sums over what is left."""
    dtype, out = x.dtype, dy.shape[1:3]
    # dy as the input gradient pads it: the same operation, so that XLA computes and stores dy once for both.
    around = _around(out, window, stride, padding, x.shape[1:3])
    dy = _shifted(_padded(dy, around), around[0][0], around[1][0], 1, out)
    x = _padded(x, padding)
    axis = 1 if _chain(dy.shape[1]) >= min(5, _chain(dy.shape[0])) else 0  # images where rows do not divide well
    size = dy.shape[axis]
    chain = _chain(size) if _chain(size) >= 4 else min(size, CPU_CHAIN)
    whole = size - size % chain
    total = _summed_products(x, lax.slice_in_dim(dy, 0, whole, axis=axis), stride, window, axis, chain)
    if whole < size:
        x = lax.slice_in_dim(x, whole * (stride if axis == 1 else 1), None, axis=axis)
        rest = lax.slice_in_dim(dy, whole, size, axis=axis)
        total += _summed_products(x, rest, stride, window, axis, size - whole)
    return total.astype(dtype)


def _summed_products(
    x: jax.Array, dy: jax.Array, stride: int, window: tuple[int, int], axis: int, chain: int
) -> jax.Array:
    """The kernel gradient [kh, kw, 1, C] of padded x and of a dy whose `axis` (0 or 1) is a multiple of `chain`.

    Several taps share one loop, because a reduction of several operands is the one operation that XLA:CPU fuses,
    vectorises and splits over its threads with more than one result: a value of x or dy is loaded once for all of them.
    """
    channels = dy.shape[3]
    out = dy.shape[1:3]
    parts = (*dy.shape[:axis], dy.shape[axis] // chain, chain, *dy.shape[axis + 1 :])
    taps = [(i, j) for i in range(window[0]) for j in range(window[1])]
    together = max(1, CPU_TAPS // window[1]) * window[1]
    sums = []
    for first in range(0, len(taps), together):
        group = taps[first : first + together]
        products = [(_shifted(x[: dy.shape[0]], i, j, stride, out) * dy).reshape(parts) for i, j in group]
        zeros = [jnp.zeros((), x.dtype)] * len(group)
        sums += lax.reduce(products, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (axis + 1,))
    return jnp.stack([part.reshape(-1, channels).sum(axis=0) for part in sums]).reshape(*window, 1, channels)


def _around(
    out: tuple[int, int], window: tuple[int, int], stride: int, padding: Padding, image: tuple[int, int]
) -> Padding:
    """Zeros that the polyphase input gradient needs around dy: a phase's reach before, up to the image's end after."""
    sizes = zip(image, padding, window, out, strict=True)
    return tuple(((k - 1) // stride, max(0, -(-(size + low) // stride) - y)) for size, (low, _), k, y in sizes)


def _chain(size: int) -> int:
    """The largest divisor of `size` that is at most CPU_CHAIN."""
    return max(n for n in range(1, CPU_CHAIN + 1) if size % n == 0)


def _padded(x: jax.Array, padding: Padding) -> jax.Array:
    """x with zeros around it, at least float32, written once: without the barrier every tap may pad anew."""
    return lax.optimization_barrier(_pad(x, padding).astype(jnp.promote_types(x.dtype, jnp.float32)))


def _pad(x: jax.Array, padding: Padding) -> jax.Array:
    """Zeros around [N, H, W, C]; negative amounts crop."""
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)))


def _shifted(x: jax.Array, i: int, j: int, stride: int, out: tuple[int, int]) -> jax.Array:
    """What tap (i, j) sees: [N, *out, C], every `stride`-th row from i and column from j."""
    end = (x.shape[0], i + (out[0] - 1) * stride + 1, j + (out[1] - 1) * stride + 1, x.shape[3])
    return lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))


# GPU (cuda and rocm) and whatever else there is: XLA's own.
FORMS: dict[str, dict[str, Callable[..., jax.Array]]] = {
    "cpu": {"convolve": cpu_convolve, "input_gradient": cpu_input_gradient, "kernel_gradient": cpu_kernel_gradient},
    "gpu": {
        "convolve": grouped_convolve,
        "input_gradient": grouped_input_gradient,
        "kernel_gradient": grouped_kernel_gradient,
    },
    "tpu": {"convolve": tpu_convolve, "input_gradient": tpu_input_gradient, "kernel_gradient": tpu_kernel_gradient},
}
