"""Heads that give each position a class: the record of one (LR-ASPP, DeepLabv3), and its plan on one backbone.

Pure Python, no jax. Both kinds read the backbone's last map, "high", and what is pooled of it. LR-ASPP (V3 paper,
section 6.4) multiplies one by the other and adds the logits of a finer map, "low"; DeepLabv3 (arXiv 1706.05587)
concatenates branches, among them dilated convolutions.
"""

import abc
import dataclasses

from mnet_jax.errors import Range, check_choice
from mnet_jax.models.dilation import OUTPUT_STRIDES, dilated
from mnet_jax.models.heads.taps import Tap, find_first, find_tap
from mnet_jax.models.plans import ConvPlan, ModelPlan, Norm, Size, Variable

LOW_STRIDE = 8  # of the finer map, whose first block is taken (torchvision; V3 paper, figure 10)
# The 1280 channels above V2's last block are for classes of whole images (V2 paper, section 6.3): its heads take 320.
HIGH_MAPS = {"v2": "output", "v2_rf2": "output"}
AUXILIARY_SHARE = 4  # the auxiliary head has a quarter of its map's features (torchvision's FCNHead)
AUXILIARY_DROPOUT = 0.1
CLASSES = Range(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskHeadSpec(abc.ABC):
    """What kinds of heads share, as their library has it, for any backbone."""

    name: str
    source: str
    features: int  # inside
    output_stride: int = 16  # of the backbone's last map, if nothing else is asked for
    dilation: str  # of `models.dilation.RULES`
    align_corners: bool  # how maps are resized, see `ops.bilinear.upsample`
    norm: Norm | None = None  # of the head's layers; None: the backbone's

    @abc.abstractmethod
    def plan(self, plan: ModelPlan, common: dict, auxiliary: bool) -> "MaskHeadPlan":
        """Returns the plan on a dilated backbone; `common`: the fields that all plans have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskHeadPlan:
    """A head on one backbone, for one number of classes. Its layers lie beside the backbone's, with unique names."""

    name: str
    norm: Norm
    output_stride: int
    dilation: str
    align_corners: bool
    num_classes: int  # of the map; a background is one of them
    high: Tap

    @property
    @abc.abstractmethod
    def layers(self) -> tuple[ConvPlan, ...]:
        """All layers."""

    @property
    @abc.abstractmethod
    def taps(self) -> tuple[Tap, ...]:
        """The maps that are taken of the backbone."""

    @property
    @abc.abstractmethod
    def class_scopes(self) -> tuple[str, ...]:
        """The scopes of the layers that other classes need anew: those that give the logits."""

    @abc.abstractmethod
    def placed(self, image_size: int | Size) -> list[tuple[ConvPlan, Size]]:
        """Returns every layer with the size of the map that it is given."""

    @abc.abstractmethod
    def map_size(self, image_size: int | Size) -> Size:
        """Returns height and width of the logits."""

    @property
    def has_auxiliary(self) -> bool:
        """Whether training has an auxiliary head."""
        return False

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all layers."""
        return tuple(layer.name for layer in self.layers)

    def backbone(self, plan: ModelPlan) -> ModelPlan:
        """Returns the backbone with the head's output stride; one that has it already is returned as it is."""
        return dilated(plan, self.output_stride, self.dilation)

    def variables(self) -> list[Variable]:
        """Returns the variables of all layers."""
        return [variable for layer in self.layers for variable in layer.variables(self.norm)]


# --- LR-ASPP ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class LrasppSpec(MaskHeadSpec):
    """A 1x1 convolution gated by a pooled sigmoid branch, and the logits of a finer map.

    `pool`: ((rows, columns) of a window, (rows, columns) from one to the next), of the last map, no larger than that;
    None: the whole map.
    """

    features: int = 128
    pool: tuple[Size, Size] | None = None

    def plan(self, plan: ModelPlan, common: dict, auxiliary: bool) -> "LrasppPlan":
        """Returns the plan on a dilated backbone.

        Raises:
          ValueError: if an auxiliary head is asked for, which LR-ASPP has not.
        """
        if auxiliary:
            raise ValueError(f"the head {self.name} has no auxiliary head: LR-ASPP reads the finer map itself")
        low, into = find_first(plan, LOW_STRIDE), common["high"].features
        classes = common["num_classes"]
        return LrasppPlan(
            low=low,
            pool=self.pool,
            project=ConvPlan("mask_project", into, self.features, "relu"),
            gate=ConvPlan("mask_gate", into, self.features, "sigmoid", norm=False),
            classes=_classes("mask_classes", self.features, classes),
            low_classes=_classes("mask_low_classes", low.features, classes),
            **common,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LrasppPlan(MaskHeadPlan):
    """The layers of `LrasppSpec`: logits = low_classes(low) + resized classes(project(high) * gate(pooled high))."""

    low: Tap
    pool: tuple[Size, Size] | None
    project: ConvPlan
    gate: ConvPlan
    classes: ConvPlan
    low_classes: ConvPlan

    @property
    def layers(self) -> tuple[ConvPlan, ...]:
        """All layers."""
        return self.project, self.gate, self.classes, self.low_classes

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The finer map and the last one."""
        return self.low, self.high

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """Both classifiers."""
        return self.classes.name, self.low_classes.name

    def placed(self, image_size: int | Size) -> list[tuple[ConvPlan, Size]]:
        """Returns every layer with the size of its map; the gate with that of the pooled map."""
        high, low = self.high.size(_sides(image_size)), self.map_size(image_size)
        pooled = (1, 1)
        if self.pool is not None:
            pooled = tuple(
                (side - min(window, side)) // step + 1 for side, window, step in zip(high, *self.pool, strict=True)
            )
        return [(self.project, high), (self.gate, pooled), (self.classes, high), (self.low_classes, low)]

    def map_size(self, image_size: int | Size) -> Size:
        """Returns the size of the finer map."""
        return self.low.size(_sides(image_size))


# --- DeepLabv3 ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeeplabSpec(MaskHeadSpec):
    """Branches of the last map (1x1, pooled, 3x3 at `rates`), concatenated, merged by a 1x1 convolution."""

    features: int = 256
    rates: tuple[int, ...] = ()
    rates_at: int | None = None  # the output stride for which the rates are meant; None: the same for each
    pooled_first: bool  # of the concatenated branches
    refined: bool  # a 3x3 convolution after the merge
    dropout: float  # after the merge
    auxiliary: bool = True  # whether it may have an auxiliary head, on the finer map

    def plan(self, plan: ModelPlan, common: dict, auxiliary: bool) -> "DeeplabPlan":
        """Returns the plan on a dilated backbone."""
        into, classes, wide = common["high"].features, common["num_classes"], self.features
        rates = self.rates
        if self.rates_at is not None:
            rates = tuple(rate * self.rates_at // common["output_stride"] for rate in rates)
        low = narrow = None
        if auxiliary:
            low = find_first(plan, LOW_STRIDE)
            narrow = low.features // AUXILIARY_SHARE
        return DeeplabPlan(
            pooled_first=self.pooled_first,
            dropout=self.dropout,
            low=low,
            pooled=ConvPlan("mask_pooled", into, wide, "relu"),
            local=ConvPlan("mask_local", into, wide, "relu"),
            wider=tuple(
                ConvPlan(f"mask_wider_{number}", into, wide, "relu", kernel=3, dilation=rate)
                for number, rate in enumerate(rates)
            ),
            merge=ConvPlan("mask_merge", (2 + len(rates)) * wide, wide, "relu"),
            refine=ConvPlan("mask_refine", wide, wide, "relu", kernel=3) if self.refined else None,
            classes=_classes("mask_classes", wide, classes),
            auxiliary=ConvPlan("auxiliary", low.features, narrow, "relu", kernel=3) if auxiliary else None,
            auxiliary_classes=_classes("auxiliary_classes", narrow, classes) if auxiliary else None,
            **common,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeeplabPlan(MaskHeadPlan):
    """The layers of `DeeplabSpec`: logits = classes(refine(merge(branches of high)))."""

    pooled_first: bool
    dropout: float
    low: Tap | None  # of the auxiliary head
    pooled: ConvPlan
    local: ConvPlan
    wider: tuple[ConvPlan, ...]
    merge: ConvPlan
    refine: ConvPlan | None
    classes: ConvPlan
    auxiliary: ConvPlan | None
    auxiliary_classes: ConvPlan | None

    @property
    def layers(self) -> tuple[ConvPlan, ...]:
        """All layers, the auxiliary head's last."""
        own = (self.pooled, self.local, *self.wider, self.merge, self.refine, self.classes)
        return tuple(layer for layer in (*own, self.auxiliary, self.auxiliary_classes) if layer is not None)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The last map, and that of the auxiliary head."""
        return (self.high,) if self.low is None else (self.low, self.high)

    @property
    def class_scopes(self) -> tuple[str, ...]:
        """The classifiers."""
        return tuple(layer.name for layer in (self.classes, self.auxiliary_classes) if layer is not None)

    @property
    def has_auxiliary(self) -> bool:
        """Whether training has an auxiliary head."""
        return self.auxiliary is not None

    def placed(self, image_size: int | Size) -> list[tuple[ConvPlan, Size]]:
        """Returns every layer with the size of its map, without the auxiliary head, which inference leaves out."""
        high = self.map_size(image_size)
        sizes = {self.pooled.name: (1, 1)}
        extra = {layer.name for layer in (self.auxiliary, self.auxiliary_classes) if layer is not None}
        return [(layer, sizes.get(layer.name, high)) for layer in self.layers if layer.name not in extra]

    def map_size(self, image_size: int | Size) -> Size:
        """Returns the size of the last map."""
        return self.high.size(_sides(image_size))


def resolve_mask_head(
    spec: MaskHeadSpec,
    plan: ModelPlan,
    num_classes: int,
    *,
    output_stride: int | None = None,
    auxiliary: bool = False,
) -> MaskHeadPlan:
    """Returns the head on a backbone, which `MaskHeadPlan.backbone` then gives the output stride.

    Args:
      spec: the head.
      plan: the backbone, dilated or not; what it has above its maps is not used.
      num_classes: of the map, with the background if there is one; at least 1.
      output_stride: 8, 16 or 32, of the backbone's last map; None: the head's own.
      auxiliary: whether training has an auxiliary head too.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes not in CLASSES:
        raise ValueError(f"num_classes must be a whole number {CLASSES}, got {num_classes!r}")
    output_stride = spec.output_stride if output_stride is None else output_stride
    check_choice("output_stride", output_stride, OUTPUT_STRIDES)
    if plan.quantization is not None:
        raise ValueError(f"the head {spec.name} is not trained with int8 rounding: leave quantize.train off")
    plan = dilated(plan, output_stride, spec.dilation)
    common = {
        "name": spec.name,
        "norm": spec.norm or plan.norm,
        "output_stride": output_stride,
        "dilation": spec.dilation,
        "align_corners": spec.align_corners,
        "num_classes": num_classes,
        "high": find_tap(plan, HIGH_MAPS.get(plan.name, "last"), 0),
    }
    return spec.plan(plan, common, auxiliary)


def _classes(name: str, into: int, features: int) -> ConvPlan:
    return ConvPlan(name, into, features, norm=False, bias=True, init="classifier")


def _sides(image_size: int | Size) -> Size:
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
