"""The layers that blocks are made of: convolution with norm and activation, squeeze-excite, attention.

Parameters are float32 whatever the compute dtype; norms and activations are computed in float32 between convolutions
(XLA fuses them into one pass over the map) and only what leaves a layer has the compute dtype.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from mnet_jax.models import norm_product, plans
from mnet_jax.models.compute import Compute
from mnet_jax.models.fake_quantization import round_between, round_kernel, round_observed
from mnet_jax.models.norm import affine, along_channels, normalize
from mnet_jax.models.ops.conv import dense_conv
from mnet_jax.models.ops.depthwise import depthwise_conv
from mnet_jax.models.ops.pointwise import pointwise_conv
from mnet_jax.models.ops.pool import pool
from mnet_jax.models.sizes import explicit_padding


@dataclasses.dataclass(frozen=True)
class Shared:
    """What every layer of a network is told beside its own plan."""

    dtype: str
    padding: str
    norm: plans.Norm
    norm_axis_name: str | None = None
    norm_frozen: bool = False
    quantization: plans.Quantization | None = None

    @classmethod
    def of(cls, plan: plans.ModelPlan, compute: Compute) -> "Shared":
        """Returns what the layers of this network are told."""
        return cls(
            compute.dtype, plan.padding, plan.norm, compute.norm_axis_name, compute.norm_frozen, plan.quantization
        )

    def norm_module(self, name: str) -> nn.Module:
        """Returns a norm of the network's kind, with its settings."""
        return NORMS[type(self.norm)](self.norm, self.norm_axis_name, self.norm_frozen, name=name)


# --- Activations: float32 [..., C] -> the same ---


def relu6(x: jax.Array) -> jax.Array:
    """Returns min(max(x, 0), 6); one clamp, whose gradient is 0 at both corners."""
    return lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype))


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """Returns relu6(x + 3) / 6, V3's (not Keras 2's 0.2 x + 0.5)."""
    return relu6(x + 3.0) * (1.0 / 6.0)


def hard_swish(x: jax.Array) -> jax.Array:
    """Returns x relu6(x + 3) / 6."""
    return x * hard_sigmoid(x)


def gelu(x: jax.Array) -> jax.Array:
    """Returns the exact GELU (erf), as timm and the model garden have it; jax defaults to the tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Returns the approximation of GELU by tanh, V5's."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": relu6,
    "sigmoid": jax.nn.sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_swish": hard_swish,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
}


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, [..., C] -> float32 [..., C].

    The running variance is the unbiased one, as TensorFlow's fused kernel and PyTorch have it (flax: the biased one).
    """

    norm: plans.BatchNorm
    axis_name: str | None  # statistics are those of the batch over this mapped axis; None: of the local batch
    frozen: bool = False  # use the running statistics in training too, and leave them as they are

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, kernel: jax.Array | None = None) -> jax.Array:
        """Normalises x, or x @ `kernel` [I, C] where that is given."""
        features = x.shape[-1] if kernel is None else kernel.shape[1]
        epsilon, decay = self.norm.epsilon, self.norm.decay
        scale = self.param("scale", initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", initializers.zeros, (features,), jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        averages = self.frozen or not train
        fused = kernel is not None and not averages and self.axis_name is None
        if kernel is not None and not (fused and norm_product.pays(x.dtype, *kernel.shape)):
            x, kernel = pointwise_conv(x, kernel), None
        if averages:
            return affine(x, mean.value, lax.rsqrt(var.value + epsilon), scale, bias)

        if kernel is None:
            y, batch_mean, batch_var = normalize(x, scale, bias, mean.value, epsilon, self.axis_name)
        else:
            y, batch_mean, batch_var = norm_product.normalize_product(x, kernel, scale, bias, epsilon)
        if not self.is_initializing():
            count = y.size // features * (1 if self.axis_name is None else lax.axis_size(self.axis_name))
            mean.value = decay * mean.value + (1 - decay) * batch_mean
            var.value = decay * var.value + (1 - decay) * batch_var * (count / max(count - 1, 1))
        return y


class RmsNorm(nn.Module):
    """Root mean square normalisation over the channels of each position, [..., C] -> float32 [..., C]."""

    norm: plans.RmsNorm
    axis_name: str | None  # as those of `BatchNorm`; without statistics they change nothing
    frozen: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, kernel: jax.Array | None = None) -> jax.Array:
        """Normalises x, or x @ `kernel` [I, C] where that is given; the same in training."""
        x = (x if kernel is None else pointwise_conv(x, kernel)).astype(jnp.float32)
        scale = self.param("scale", initializers.ones, (x.shape[-1],), jnp.float32)
        inverse = lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.norm.epsilon)
        return x * inverse * along_channels(scale, x)


# The module of each kind of norm. All are made and called as `BatchNorm` is, with `kernel` where they are to normalise
# a product.
NORMS: dict[type[plans.Norm], type[nn.Module]] = {plans.BatchNorm: BatchNorm, plans.RmsNorm: RmsNorm}


class Conv(nn.Module):
    """One `plans.ConvPlan`: [N, H, W, C] (or [N, C] for a pointwise layer) -> the same rank."""

    plan: plans.ConvPlan
    shared: Shared

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        plan, dtype = self.plan, self.shared.dtype
        initial = initializers.normal(plan.kernel_deviation)
        kernel = self.param(plan.kernel_name, initial, plan.kernel_shape, jnp.float32)
        if self.shared.quantization is not None:
            kernel = round_kernel(kernel)
        kernel = kernel.astype(dtype)
        x, product = x.astype(dtype), None
        pooled = plan.pool is not None and plan.stride > 1
        stride = 1 if pooled else plan.stride
        if plan.depthwise:
            x = depthwise_conv(x, kernel, stride, self._padding(x, stride), plan.dilation)
        elif plan.kernel == 1 and plan.norm and not plan.bias:
            product = kernel
        elif plan.kernel == 1:
            x = pointwise_conv(x, kernel)
        else:
            x = dense_conv(x, kernel, stride, self._padding(x, stride), plan.dilation)
        if plan.bias:
            bias = self.param("bias", initializers.constant(plan.bias_mean), (plan.features,), jnp.float32)
            x = x.astype(jnp.float32) + bias.reshape((1,) * (x.ndim - 1) + (plan.features,))
        if plan.norm:
            x = self.shared.norm_module("norm")(x, train=train, kernel=product)
        if self.shared.quantization is not None:
            x = self._activate_rounded(x, train=train)
        elif plan.activation is not None:
            x = ACTIVATIONS[plan.activation](x)
        if pooled:
            x = pool(x, plan.pool, plan.stride)
        return x.astype(dtype)

    def _activate_rounded(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the activation as int8 networks have it: a hard swish is a rounded product of two rounded factors."""
        quantization, activation = self.shared.quantization, self.plan.activation
        if activation in ("hard_sigmoid", "sigmoid"):
            return round_between(ACTIVATIONS[activation](x), 0.0, 1.0)
        if activation == "hard_swish":
            x = round_observed(self, "linear_range", x, quantization, train=train)
            x = x * round_between(hard_sigmoid(x), 0.0, 1.0)
        elif activation is not None:
            x = ACTIVATIONS[activation](x)
        return round_observed(self, "output_range", x, quantization, train=train)

    def _padding(self, x: jax.Array, stride: int) -> tuple[tuple[int, int], tuple[int, int]]:
        height, width = (
            explicit_padding(self.shared.padding, size, self.plan.kernel, stride, self.plan.dilation)
            for size in x.shape[1:3]
        )
        return height, width


class SqueezeExcite(nn.Module):
    """[N, H, W, C] -> the same, each channel multiplied by a learned function of all channels' averages."""

    plan: plans.SqueezeExcitePlan
    shared: Shared

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        quantization = self.shared.quantization
        gate = x.mean((1, 2), dtype=jnp.float32)
        gate = round_observed(self, "pool_range", gate, quantization, train=train)
        for layer in (self.plan.reduce, self.plan.expand):
            gate = Conv(layer, self.shared, name=layer.name)(gate, train=train)
        x = x * gate[:, None, None, :]
        return round_observed(self, "output_range", x, quantization, train=train).astype(x.dtype)


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Returns multi-query attention [N, L, heads, d]: query [N, L, heads, d], key and value [N, M, d] for all heads.

    Positions and heads are one axis of one matrix product per image; the softmax is in float32.
    """
    batch, length, heads, features = query.shape
    query = query.reshape(batch, length * heads, features) * features**-0.5
    scores = jnp.einsum("nld,nmd->nlm", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("nlm,nmd->nld", weights, value).reshape(batch, length, heads, features)
