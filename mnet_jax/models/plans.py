"""One concrete network, as data: every width rounded, every layer named, every stride final. Pure Python, no jax.

`specs.resolve` makes plans; the model, `mnet summary`, weight import and export read them. The names in a plan are the
scopes of the model's variables.
"""

import dataclasses
import math

PADDINGS = ("same", "symmetric")
STEM_STRIDES = (1, 2, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Norm:
    """Batch normalisation: running averages keep `decay` of themselves a step, `epsilon` is added to the variance."""

    decay: float
    epsilon: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantization:
    """Training with int8 rounding: observed ranges keep `range_decay` of themselves a step (`quantization.py`)."""

    range_decay: float


@dataclasses.dataclass(frozen=True)
class ConvPlan:
    """One convolution with what follows it: norm or bias, then an activation (None: linear).

    `depthwise` means one filter a channel (features == in_features); otherwise kernel 1 is a pointwise layer, stride 1.
    """

    name: str
    in_features: int
    features: int
    activation: str | None = None
    _: dataclasses.KW_ONLY
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    norm: bool = True
    bias: bool = False
    init: str = "fan_out"  # of the kernel: "fan_out", "xavier" or "classifier"

    @property
    def ranges(self) -> tuple[str, ...]:
        """Names of the ranges that quantised training observes: what enters a hard swish, and what leaves the layer.

        A gate (hard sigmoid) has a range by itself: 0 to 1.
        """
        if self.activation == "hard_sigmoid":
            return ()
        return ("linear_range", "output_range") if self.activation == "hard_swish" else ("output_range",)

    @property
    def kernel_name(self) -> str:
        """Leaf of the kernel in the layer's scope; its own name for depthwise kernels, which weight decay may spare."""
        return "depthwise_kernel" if self.depthwise else "kernel"

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """[k, k, 1, C] depthwise, [in, out] pointwise, [k, k, in, out] otherwise."""
        if self.depthwise:
            return self.kernel, self.kernel, 1, self.features
        if self.kernel == 1:
            return self.in_features, self.features
        return self.kernel, self.kernel, self.in_features, self.features

    @property
    def kernel_deviation(self) -> float:
        """Standard deviation of the initial kernel, a normal distribution around 0.

        fan_out: variance 2 / fan-out, a depthwise filter's fan-out being k * k (timm's `_init_weight_goog`, from the
          EfficientNet TPU code; slim's .09 for every layer fits none of them especially).
        xavier: variance 2 / (in + out), for attention's projections (timm: "appeared to improve stability").
        classifier: .01 (torchvision's MobileNets): the first loss is that of a uniform guess however few the classes.
        """
        match self.init:
            case "fan_out":
                return math.sqrt(2 / (self.kernel**2 * (1 if self.depthwise else self.features)))
            case "xavier":
                return math.sqrt(2 / (self.in_features + self.features))
            case "classifier":
                return 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExcitePlan:
    """Global average pool, `reduce`, `expand`; the result (0..1) multiplies the channels of the layer before it."""

    name: str
    reduce: ConvPlan
    expand: ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormPlan:
    """A batch normalisation that follows no convolution (before attention)."""

    name: str
    features: int


LayerPlan = ConvPlan | SqueezeExcitePlan | NormPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """What all blocks share. A subclass's layers are its fields, in the order in which they run."""

    name: str
    kind: str  # for people: "inverted_residual", "extra_dw", ...
    in_features: int
    features: int
    stride: int
    residual: bool
    drop_path: float  # probability that training drops the block's branch of an example; 0 without a residual

    @property
    def layers(self) -> tuple[LayerPlan, ...]:
        """The layers that exist, in the order in which they run."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(value for value in values if isinstance(value, LayerPlan))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvBlockPlan(BlockPlan):
    conv: ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparablePlan(BlockPlan):
    depthwise: ConvPlan
    pointwise: ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedResidualPlan(BlockPlan):
    expand: ConvPlan | None
    depthwise: ConvPlan
    squeeze_excite: SqueezeExcitePlan | None
    project: ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusedInvertedBottleneckPlan(BlockPlan):
    expand: ConvPlan
    project: ConvPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalInvertedBottleneckPlan(BlockPlan):
    start_depthwise: ConvPlan | None
    expand: ConvPlan
    middle_depthwise: ConvPlan | None
    project: ConvPlan
    layer_scale: float | None  # how a learned factor for each channel starts, the leaf "layer_scale"; None: no factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiQueryAttentionPlan(BlockPlan):
    norm: NormPlan
    query: ConvPlan  # to heads * key_features channels, head-major
    key_depthwise: ConvPlan | None
    key: ConvPlan
    value_depthwise: ConvPlan | None
    value: ConvPlan
    output: ConvPlan
    heads: int
    key_features: int
    layer_scale: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One concrete network. Order: stem, blocks, last_conv, global average pool, head, dropout, classifier."""

    name: str
    width: float
    width_rule: str
    num_classes: int
    padding: str
    norm: Norm
    dropout: float
    image_size: int
    stem_stride: int
    stem: ConvPlan
    blocks: tuple[BlockPlan, ...]
    last_conv: ConvPlan | None
    head: ConvPlan | None
    classifier: ConvPlan
    feature_blocks: tuple[tuple[int, str], ...]  # (stride, name of the last block at that stride), four of them
    quantization: Quantization | None = None


def output_size(size: int, stride: int) -> int:
    """Side of a map after a convolution; the same for both paddings, because kernels are odd."""
    return -(-size // stride)


def explicit_padding(padding: str, size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros (before, after) along one side of `size` pixels.

    "same" is TensorFlow's: as few as the output needs, the odd one after, hence (0, 1) for kernel 3, stride 2, even
    size. "symmetric" is PyTorch's: kernel // 2 on both sides.
    """
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    total = max((output_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
