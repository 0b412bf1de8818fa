"""One concrete network, as data: every width rounded, every layer named, every stride final. Pure Python, no jax.

`resolve.resolve` makes plans; the model, `mnet summary`, weight import and export read them. The names in a plan are
the scopes of the model's variables.
"""

import abc
import dataclasses
import math

from mnet_jax.models import pools
from mnet_jax.models.norm_kinds import BatchNorm, Norm, Quantization, RmsNorm, Variable
from mnet_jax.models.sizes import output_size

PADDINGS = ("same", "symmetric")
STEM_STRIDES = (1, 2, 4)

Size = tuple[int, int]  # height and width of a map

__all__ = [
    "PADDINGS",
    "STEM_STRIDES",
    "BatchNorm",
    "BlockPlan",
    "ConvPlan",
    "FusionPlan",
    "LayerPlan",
    "ModelPlan",
    "Norm",
    "NormPlan",
    "Quantization",
    "RmsNorm",
    "Size",
    "SqueezeExcitePlan",
    "Variable",
    "depthwise",
    "with_classifier",
]

# --- Layers ---


class LayerPlan(abc.ABC):
    """One layer: a module of `layers.py`, in the scope `name`."""

    name: str

    @abc.abstractmethod
    def variables(self, norm: Norm, scope: tuple[str, ...] = ()) -> list[Variable]:
        """Returns the layer's variables; it stands in `scope`, in a network that is normalised by `norm`."""

    def ranges(self, scope: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Returns the paths of the ranges that quantised training observes."""
        del scope
        return []

    def output_size(self, size: Size) -> Size:
        """Returns the size of the layer's result for a map of `size`."""
        return size

    def multiply_adds(self, size: Size) -> int:
        """Returns the multiply-adds for a map of `size`."""
        del size
        return 0


@dataclasses.dataclass(frozen=True)
class ConvPlan(LayerPlan):
    """One convolution with what follows it: norm or bias (V5's stem: both), then an activation (None: linear).

    `depthwise` means one filter a channel (features == in_features); otherwise kernel 1 is a pointwise layer, stride 1.
    """

    name: str
    in_features: int
    features: int
    activation: str | None = None
    _: dataclasses.KW_ONLY
    kernel: int = 1
    stride: int = 1
    dilation: int = 1  # rows, and columns, from one tap of the kernel to the next; above 1 with stride 1 only
    depthwise: bool = False
    groups: int = 1  # of the input's channels; each makes as many features, out of its own alone
    pool: str | None = None  # of `pools.POOLS`: has the stride, after the activation, in place of the convolution
    norm: bool = True
    bias: bool = False
    init: str = "fan_out"  # of the kernel: "fan_out", "xavier" or "classifier"
    deviation: float | None = None  # of the initial kernel, in place of what `init` says
    bias_mean: float = 0.0  # the initial bias

    @property
    def kernel_name(self) -> str:
        """Leaf of the kernel in the layer's scope; its own name for depthwise kernels, which weight decay may spare."""
        return "depthwise_kernel" if self.depthwise else "kernel"

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """[k, k, 1, C] depthwise, [in, out] pointwise, [k, k, in / groups, out] otherwise."""
        if self.depthwise:
            return self.kernel, self.kernel, 1, self.features
        if self.kernel == 1:
            return self.in_features, self.features
        return self.kernel, self.kernel, self.in_features // self.groups, self.features

    @property
    def kernel_deviation(self) -> float:
        """Standard deviation of the initial kernel, a normal distribution around 0.

        fan_out: variance 2 / fan-out, a depthwise filter's fan-out being k * k (timm's `_init_weight_goog`, from the
          EfficientNet TPU code; slim's .09 for every layer fits none of them especially).
        xavier: variance 2 / (in + out), for attention's projections (timm: "appeared to improve stability").
        classifier: .01 (torchvision's MobileNets): the first loss is that of a uniform guess however few the classes.
        """
        if self.deviation is not None:
            return self.deviation
        match self.init:
            case "fan_out":
                return math.sqrt(2 / (self.kernel**2 * (1 if self.depthwise else self.features // self.groups)))
            case "xavier":
                return math.sqrt(2 / (self.in_features + self.features))
            case "classifier":
                return 0.01

    def variables(self, norm: Norm, scope: tuple[str, ...] = ()) -> list[Variable]:
        """Returns kernel, norm and bias, those that there are."""
        scope = (*scope, self.name)
        kernel = Variable(
            collection="params",
            path=(*scope, self.kernel_name),
            shape=self.kernel_shape,
            deviation=self.kernel_deviation,
        )
        variables = [kernel, *(norm.variables(self.features, (*scope, "norm")) if self.norm else ())]
        if self.bias:
            path = (*scope, "bias")
            variables.append(Variable(collection="params", path=path, shape=(self.features,), mean=self.bias_mean))
        return variables

    def ranges(self, scope: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Returns those of what enters a hard swish and of what leaves the layer; a gate's is known, 0 to 1."""
        if self.activation in ("hard_sigmoid", "sigmoid"):
            return []
        names = ("linear_range", "output_range") if self.activation == "hard_swish" else ("output_range",)
        return [(*scope, self.name, name) for name in names]

    def output_size(self, size: Size) -> Size:
        """Returns the size of the result."""
        if self.pool is not None and self.stride > 1:
            return pools.pooled(size, self.pool, self.stride)
        return output_size(size[0], self.stride), output_size(size[1], self.stride)

    def multiply_adds(self, size: Size) -> int:
        """Returns the kernel's weights times the positions at which each of them works once."""
        return math.prod(self.kernel_shape) * math.prod(self.output_size(size) if self.pool is None else size)


def depthwise(name: str, features: int, kernel: int, stride: int, activation: str | None = None) -> ConvPlan:
    """Returns a depthwise convolution with norm."""
    return ConvPlan(name, features, features, activation, kernel=kernel, stride=stride, depthwise=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExcitePlan(LayerPlan):
    """Global average pool, `reduce`, `expand`; the result (0..1) multiplies the channels of the layer before it."""

    name: str
    reduce: ConvPlan
    expand: ConvPlan

    def variables(self, norm: Norm, scope: tuple[str, ...] = ()) -> list[Variable]:
        """Returns those of both convolutions."""
        scope = (*scope, self.name)
        return self.reduce.variables(norm, scope) + self.expand.variables(norm, scope)

    def ranges(self, scope: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Returns those of the pooled vector, of the product, and of both convolutions."""
        scope = (*scope, self.name)
        return [
            (*scope, "pool_range"),
            (*scope, "output_range"),
            *self.reduce.ranges(scope),
            *self.expand.ranges(scope),
        ]

    def multiply_adds(self, size: Size) -> int:
        """Returns those of both convolutions, of a single position each."""
        del size
        return self.reduce.multiply_adds((1, 1)) + self.expand.multiply_adds((1, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormPlan(LayerPlan):
    """A norm with no convolution of its own (before attention; of one of the maps that share a convolution)."""

    name: str
    features: int
    activation: str | None = None  # of `layers.ACTIVATIONS`, after it

    def variables(self, norm: Norm, scope: tuple[str, ...] = ()) -> list[Variable]:
        """Returns the norm's."""
        return norm.variables(self.features, (*scope, self.name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionPlan(LayerPlan):
    """V5's fusion of maps: brought to the size of the finest, side by side, `expand`, `project`, resized, `norm`."""

    name: str
    blocks: tuple[str, ...]  # that give the maps, the finest first
    expand: ConvPlan
    project: ConvPlan
    norm: NormPlan
    size: Size  # of the result, whatever the size of the maps

    @property
    def in_features(self) -> int:
        """Channels of all maps together."""
        return self.expand.in_features

    @property
    def features(self) -> int:
        """Channels of the result."""
        return self.project.features

    def variables(self, norm: Norm, scope: tuple[str, ...] = ()) -> list[Variable]:
        """Returns those of both convolutions and of the norm."""
        scope = (*scope, self.name)
        return [value for layer in (self.expand, self.project, self.norm) for value in layer.variables(norm, scope)]

    def output_size(self, size: Size) -> Size:
        """Returns the size of the result."""
        del size
        return self.size

    def multiply_adds(self, size: Size) -> int:
        """Returns those of both convolutions, for a finest map of `size`."""
        return self.expand.multiply_adds(size) + self.project.multiply_adds(size)


# --- Blocks and networks ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """What all kinds of blocks share (`blocks/`). A kind's layers are its fields, in the order in which they run."""

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

    def variables(self, norm: Norm) -> list[Variable]:
        """Returns all variables of the block: its layers', and a learned factor a channel where it has one."""
        variables = [variable for layer in self.layers for variable in layer.variables(norm, (self.name,))]
        initial = getattr(self, "layer_scale", None)
        if initial is not None:
            path = (self.name, "layer_scale")
            variables.append(Variable(collection="params", path=path, shape=(self.features,), mean=initial))
        return variables

    def ranges(self) -> list[tuple[str, ...]]:
        """Returns the paths of the ranges that quantised training observes."""
        paths = [path for layer in self.layers for path in layer.ranges((self.name,))]
        return [*paths, (self.name, "output_range")] if self.residual else paths

    def output_size(self, size: Size) -> Size:
        """Returns the size of the block's result for a map of `size`."""
        strided = (layer for layer in self.layers if self.stride > 1 and getattr(layer, "stride", 1) > 1)
        return next((layer.output_size(size) for layer in strided), size)

    def multiply_adds(self, size: Size) -> int:
        """Returns the multiply-adds for a map of `size`: those of the layers, which run one after the other."""
        total = 0
        for layer in self.layers:
            total += layer.multiply_adds(size)
            size = layer.output_size(size)
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """One concrete network. Order: stem, blocks, fusion or last_conv, global average pool, head, dropout, classifier.

    A plan without a classifier is a backbone: maps, and the embedding, what comes after `head`.
    """

    name: str
    width: float
    width_rule: str
    padding: str
    norm: Norm
    dropout: float
    image_size: int
    stem_stride: int
    stem: ConvPlan
    blocks: tuple[BlockPlan, ...]
    last_conv: ConvPlan | None
    head: ConvPlan | None
    map_blocks: tuple[tuple[int, str], ...]  # (stride, name of the last block at that stride), four of them
    fusion: FusionPlan | None = None
    quantization: Quantization | None = None
    classifier: ConvPlan | None = None

    @property
    def embedding_features(self) -> int:
        """Length of the embedding."""
        layers = (self.head, self.last_conv, self.fusion, self.blocks[-1])
        return next(layer.features for layer in layers if layer is not None)

    @property
    def num_classes(self) -> int:
        """Size of the logits; 0 without a classifier."""
        return 0 if self.classifier is None else self.classifier.features


def with_classifier(plan: ModelPlan, num_classes: int) -> ModelPlan:
    """Returns the plan with a classifier, one dense layer from the embedding to `num_classes` logits.

    Raises:
      ValueError: unless `num_classes` is a whole number of at least 1.
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number of at least 1, got {num_classes!r}")
    layer = ConvPlan("classifier", plan.embedding_features, num_classes, norm=False, bias=True, init="classifier")
    return dataclasses.replace(plan, classifier=layer)
