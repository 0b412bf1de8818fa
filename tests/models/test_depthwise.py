"""The depthwise convolution and its gradients against NumPy in float64, and every backend's form against the others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnet_jax.models.ops import depthwise_gpu
from mnet_jax.models.ops.depthwise import FORMS, depthwise_conv
from mnet_jax.models.ops.windows import output_size

# images, height, width, channels, kernel height, kernel width, stride, padding, and dilation where it is not 1
CASES = {
    "same": (2, 8, 8, 8, 3, 3, 1, ((1, 1), (1, 1))),
    "same, stride 2, even": (2, 8, 8, 16, 3, 3, 2, ((0, 1), (0, 1))),
    "symmetric, stride 2, even": (2, 8, 8, 16, 3, 3, 2, ((1, 1), (1, 1))),
    "stride 2, odd": (3, 7, 9, 8, 5, 5, 2, ((2, 2), (2, 2))),
    "5x5, larger than the image": (2, 3, 2, 8, 5, 5, 1, ((2, 2), (2, 2))),
    "7x7, stride 2": (1, 11, 8, 8, 7, 7, 2, ((3, 3), (2, 3))),
    "4x4": (2, 6, 6, 8, 4, 4, 1, ((1, 2), (1, 2))),
    "6x6, stride 2": (2, 9, 9, 8, 6, 6, 2, ((2, 2), (2, 2))),
    "1x1, stride 2": (1, 5, 5, 8, 1, 1, 2, ((0, 0), (0, 0))),
    "2x4, stride 2, uneven padding": (2, 6, 7, 8, 2, 4, 2, ((4, 1), (0, 5))),
    "cropped (negative padding)": (2, 9, 9, 8, 3, 3, 2, ((-1, -2), (0, -1))),
    "channels that 8 does not divide": (2, 6, 6, 5, 3, 3, 1, ((1, 1), (1, 1))),
    "rows and images in uneven chains": (13, 19, 3, 4, 3, 3, 1, ((1, 1), (1, 1))),
    "images in chains, with a rest": (35, 2, 2, 8, 3, 3, 1, ((1, 1), (1, 1))),
    "dilation 2": (2, 8, 9, 8, 5, 5, 1, ((4, 4), (4, 4)), 2),
    "dilation 4, rows in uneven chains": (1, 17, 6, 16, 3, 3, 1, ((4, 4), (4, 4)), 4),
    "dilation 6, larger than the image": (2, 4, 3, 8, 3, 3, 1, ((6, 6), (6, 6)), 6),
    "dilation 3, uneven padding": (2, 9, 8, 5, 2, 4, 1, ((2, 1), (-1, 6)), 3),
}
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


def reference(x, kernel, dy, stride, padding, dilation=1):
    """(y, dx, dkernel) in float64, tap by tap."""
    x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
    height, width = kernel.shape[:2]
    out_h, out_w = output_size(x.shape[1:3], (height, width), stride, padding, dilation)
    room = 16  # more zeros than any padding of these tests
    padded = np.pad(x, ((0, 0), (room, room), (room, room), (0, 0)))
    y, dpadded, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i in range(height):
        for j in range(width):
            top, left = room - padding[0][0] + i * dilation, room - padding[1][0] + j * dilation
            rows = slice(top, top + (out_h - 1) * stride + 1, stride)
            columns = slice(left, left + (out_w - 1) * stride + 1, stride)
            y += padded[:, rows, columns] * kernel[i, j, 0]
            dpadded[:, rows, columns] += dy * kernel[i, j, 0]
            dkernel[i, j, 0] = (padded[:, rows, columns] * dy).sum((0, 1, 2))
    return y, dpadded[:, room : room + x.shape[1], room : room + x.shape[2]], dkernel


def arrays(case, dtype="float32"):
    """x, kernel, dy of a case, rounded to dtype."""
    images, h, w, channels, kh, kw, *how = case
    rng = np.random.default_rng(0)
    shapes = (
        (images, h, w, channels),
        (kh, kw, 1, channels),
        (images, *output_size((h, w), (kh, kw), *how), channels),
    )
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def value_and_gradients(convolve, x, kernel, dy, stride, padding, dilation=1):
    y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, padding, dilation), x, kernel)
    return y, *pull(dy)


def check(got, expected, dtype="float32"):
    for name, g, e in zip(("y", "dx", "dkernel"), got, expected, strict=True):
        assert g.shape == e.shape, name
        assert str(g.dtype) == dtype, name
        scale = max(1.0, np.abs(e).max())
        np.testing.assert_allclose(np.asarray(g, np.float64) / scale, e / scale, atol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_value_and_gradients(case, dtype):
    x, kernel, dy = arrays(case, dtype)
    got = value_and_gradients(depthwise_conv, x, kernel, dy, *case[6:])
    check(got, reference(x, kernel, dy, *case[6:]), dtype)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_backend_computes_the_same(case, backend):
    x, kernel, dy = arrays(case)
    stride, padding, *dilation = case[6:]
    forms = FORMS[backend]

    @jax.jit
    def all_three(x, kernel, dy):
        return (
            forms["convolve"](x, kernel, stride, padding, *dilation),
            forms["input_gradient"](dy, kernel, stride, padding, x.shape[1:3], *dilation),
            forms["kernel_gradient"](x, dy, stride, padding, kernel.shape[:2], *dilation),
        )

    check(all_three(x, kernel, dy), reference(x, kernel, dy, *case[6:]))


@st.composite
def cases(draw):
    size, pad = st.integers(1, 12), st.integers(0, 4)
    kh, kw = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 3)]))
    padding = ((draw(pad), draw(pad)), (draw(pad), draw(pad)))
    h = max(draw(size), (kh - 1) * dilation + 1 - sum(padding[0]))
    w = max(draw(size), (kw - 1) * dilation + 1 - sum(padding[1]))
    return (
        draw(st.integers(1, 18)),
        h,
        w,
        draw(st.sampled_from([1, 3, 8, 24])),
        kh,
        kw,
        stride,
        padding,
        dilation,
    )


@settings(deadline=None, max_examples=15, derandomize=True)
@given(cases(), st.sampled_from(["float32", "bfloat16"]))
def test_value_and_gradients_of_any_shape(case, dtype):
    x, kernel, dy = arrays(case, dtype)
    got = value_and_gradients(depthwise_conv, x, kernel, dy, *case[6:])
    check(got, reference(x, kernel, dy, *case[6:]), dtype)


SMALL = (2, 6, 5, 8, 3, 3, 2, ((0, 1), (1, 1)))


def test_vmap_over_images_and_kernels():
    x, kernel, dy = arrays(SMALL)
    stride, padding = SMALL[6:]
    xs, kernels, dys = (jnp.stack([a, 2 * a + 1, a - 3]) for a in (x, kernel, dy))
    for axes in ((0, 0, 0), (0, None, 0)):
        batched = jax.vmap(
            lambda x, kernel, dy: value_and_gradients(depthwise_conv, x, kernel, dy, stride, padding), in_axes=axes
        )(xs, kernels if axes[1] == 0 else kernel, dys)
        for n in range(3):
            one = reference(xs[n], kernels[n] if axes[1] == 0 else kernel, dys[n], stride, padding)
            check([a[n] for a in batched], one)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_second_derivatives_are_those_of_lax(stride, dilation):
    x, kernel, _ = arrays((1, 5, 4, 2, 3, 3, stride, ((1, 1), (1, 1)), dilation))

    def energy(convolve, x, kernel):
        return (convolve(x, kernel, stride, ((1, 1), (1, 1)), dilation) ** 3).sum()

    def curvature(convolve, x, kernel):
        """A scalar of all first derivatives: its gradient takes every second one."""
        gradients = jax.grad(functools.partial(energy, convolve), (0, 1))(x, kernel)
        return sum((jnp.sin(g) ** 2).sum() for g in gradients)

    ours, lax_own = (
        jax.jit(jax.grad(functools.partial(curvature, convolve), (0, 1)))(x, kernel)
        for convolve in (depthwise_conv, depthwise_gpu.convolve)
    )
    for a, b in zip(ours, lax_own, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * float(jnp.abs(b).max()))


def test_forward_mode_is_refused():
    x, kernel, _ = arrays(SMALL)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda kernel: depthwise_conv(x, kernel, 2, SMALL[7]), (kernel,), (kernel,))


def test_pmap_on_two_devices():
    x, kernel, dy = arrays(SMALL)
    stride, padding = SMALL[6:]
    xs, dys = jnp.stack([x, 2 * x]), jnp.stack([dy, dy + 1])

    def gradients(x, kernel, dy):
        _, pull = jax.vjp(lambda x, kernel: depthwise_conv(x, kernel, stride, padding), x, kernel)
        dx, dkernel = pull(dy)
        return dx, jax.lax.psum(dkernel, "devices")

    dx, dkernel = jax.pmap(
        gradients, axis_name="devices", in_axes=(0, None, 0), out_axes=(0, None), devices=jax.devices()[:2]
    )(xs, kernel, dys)
    each = [reference(xs[n], kernel, dys[n], stride, padding) for n in range(2)]
    np.testing.assert_allclose(dx, [e[1] for e in each], atol=1e-4)
    np.testing.assert_allclose(dkernel, each[0][2] + each[1][2], atol=1e-4)


def test_the_same_bits_every_time():
    case = (16, 16, 16, 24, 5, 5, 1, ((2, 2), (2, 2)))
    x, kernel, dy = arrays(case)
    runs = [value_and_gradients(depthwise_conv, x, kernel, dy, 1, case[7]) for _ in range(3)]
    for run in runs[1:]:
        for a, b in zip(run, runs[0], strict=True):
            np.testing.assert_array_equal(a, b)


def gradients_of(x, kernel):
    return jax.grad(lambda x, kernel: (depthwise_conv(x, kernel, 2, SMALL[7]) ** 2).sum(), (0, 1))(x, kernel)


def test_one_export_for_three_backends():
    x, kernel, _ = arrays(SMALL)
    exported = jax.export.export(jax.jit(gradients_of), platforms=("cpu", "tpu", "cuda"))(x, kernel)
    assert exported.platforms == ("cpu", "tpu", "cuda")
    for a, b in zip(exported.call(x, kernel), jax.jit(gradients_of)(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_export_may_leave_the_batch_open():
    x, kernel, _ = arrays(SMALL)
    open_batch = jax.ShapeDtypeStruct(
        jax.export.symbolic_shape(f"batch, {x.shape[1]}, {x.shape[2]}, {x.shape[3]}"), x.dtype
    )
    forward = jax.jit(lambda x, kernel: depthwise_conv(x, kernel, 2, SMALL[7]))
    exported = jax.export.export(forward, platforms=("cpu", "tpu"))(open_batch, kernel)
    np.testing.assert_allclose(exported.call(x, kernel), forward(x, kernel), rtol=1e-6)


@pytest.mark.parametrize(
    ("platform", "wanted", "unwanted"),
    [
        ("cpu", "stablehlo.slice", "stablehlo.convolution"),
        ("tpu", "feature_group_count = 2", "feature_group_count = 16"),
        ("cuda", "feature_group_count = 16", "feature_group_count = 2 "),
    ],
)
def test_each_backend_gets_its_own_form(platform, wanted, unwanted):
    """Lowered ahead of time, on this machine, whatever it has."""
    text = lowered(platform, images=128, channels=16)
    assert wanted in text
    assert unwanted not in text


def lowered(platform, images, channels):
    shapes = (
        jax.ShapeDtypeStruct((images, 6, 5, channels), jnp.float32),
        jax.ShapeDtypeStruct((3, 3, 1, channels), jnp.float32),
    )
    forward = jax.jit(lambda x, kernel: depthwise_conv(x, kernel, 1, ((1, 1), (1, 1))))
    return forward.trace(*shapes).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(
    ("images", "channels", "group"),
    [
        (128, 64, 8), (256, 72, 8), (128, 128, 1), (128, 20, 1),
        (64, 64, 1), (64, 16, 8), (192, 72, 1), (16, 16, 1), (8, 8, 1),
    ],
)  # fmt: skip
def test_groups_on_tpu_follow_channels_and_images(images, channels, group):
    assert f"feature_group_count = {channels // group} " in lowered("tpu", images, channels)


@pytest.mark.parametrize(("dilation", "groups"), [(1, 320), (2, 40)])
def test_on_tpu_the_gradient_of_a_dilated_input_is_grouped_whatever_the_channels(dilation, groups):
    like, pad = jax.ShapeDtypeStruct((128, 6, 5, 320), jnp.float32), ((dilation, dilation),) * 2
    kernel = jnp.ones((3, 3, 1, 320))
    back = jax.jit(lambda x, dy: jax.vjp(lambda x: depthwise_conv(x, kernel, 1, pad, dilation), x)[1](dy))
    text = back.trace(like, like).lower(lowering_platforms=("tpu",)).as_text()
    assert f"feature_group_count = {groups} " in text


@pytest.mark.parametrize(
    ("x", "kernel", "stride", "dtype", "message"),
    [
        ((2, 6, 6, 8), (3, 3, 8, 8), 1, "float32", r"allowed: x \[N, H, W, C\]"),
        ((2, 6, 6, 8), (3, 3, 1, 16), 1, "float32", "the same C"),
        ((6, 6, 8), (3, 3, 1, 8), 1, "float32", r"allowed: x \[N, H, W, C\]"),
        ((2, 6, 6, 8), (3, 3, 1, 8), 3, "float32", "got stride 3; allowed: 1 or 2"),
        ((2, 6, 6, 8), (3, 3, 1, 8), 1, "bfloat16", "cast one of them"),
        ((2, 2, 6, 8), (5, 5, 1, 8), 1, "float32", "larger images or more padding"),
    ],
)
def test_refused_in_one_line(x, kernel, stride, dtype, message):
    with pytest.raises(ValueError, match=message) as error:
        depthwise_conv(jnp.ones(x, "float32"), jnp.ones(kernel, dtype), stride, ((1, 1), (1, 1)))
    assert "\n" not in str(error.value)


def test_a_strided_kernel_is_not_dilated():
    x, kernel, _ = arrays(SMALL)
    with pytest.raises(ValueError, match="dilation from 1, with stride 1"):
        depthwise_conv(x, kernel, 2, SMALL[7], 2)
