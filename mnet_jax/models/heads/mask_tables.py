"""Heads for masks as data, `MASK_HEADS`, and segmenters of a head on a backbone, `SEGMENTERS`. Pure Python, no jax."""

import dataclasses
from typing import Any, ClassVar

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.masks import DeeplabSpec, LrasppSpec, MaskHeadPlan, MaskHeadSpec, resolve_mask_head
from mnet_jax.models.heads.pair import PairSpec
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.plans import BatchNorm, ModelPlan

# --- Heads ---

_TORCH_NORM = BatchNorm(decay=0.9, epsilon=1e-5)  # torch's defaults, beside the backbone's 1e-3

MASK_HEADS: dict[str, MaskHeadSpec] = {
    spec.name: spec
    for spec in (
        LrasppSpec(
            name="lraspp",
            source="MobileNetV3, arXiv 1905.02244, section 6.4 and figure 10; resized as TensorFlow's DeepLab does",
            pool=((49, 49), (16, 20)),
            dilation="previous",
            align_corners=True,
        ),
        LrasppSpec(
            name="lraspp_torchvision",
            source="torchvision, segmentation/lraspp.py",
            dilation="new",
            align_corners=False,
            norm=_TORCH_NORM,
        ),
        DeeplabSpec(
            name="deeplab",
            source="MobileNetV2, arXiv 1801.04381, section 6.3; TensorFlow's DeepLab, mobilenetv2_coco_voc_trainaug",
            pooled_first=True,
            refined=False,
            dropout=0.1,
            dilation="previous",
            align_corners=True,
        ),
        DeeplabSpec(
            name="deeplab_aspp",
            source="MobileNetV2, arXiv 1801.04381, table 7; TensorFlow's DeepLab, with dense atrous branches",
            rates=(6, 12, 18),
            rates_at=16,
            pooled_first=True,
            refined=False,
            dropout=0.1,
            dilation="previous",
            align_corners=True,
        ),
        DeeplabSpec(
            name="deeplab_torchvision",
            source="torchvision, segmentation/deeplabv3.py",
            rates=(12, 24, 36),
            pooled_first=False,
            refined=True,
            dropout=0.5,
            dilation="new",
            align_corners=False,
            norm=_TORCH_NORM,
        ),
    )
}


# --- Segmenters ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmenterSpec(PairSpec):
    """A head of `MASK_HEADS` on a backbone, dilated."""

    task: ClassVar[str] = "segmentation"
    norm_decay: float = 0.99
    output_stride: int = 16
    auxiliary: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the fields of a config that make it, by their full names."""
        return {
            **super().settings,
            "task.output_stride": self.output_stride,
            "task.auxiliary_weight": 0.5 if self.auxiliary else 0.0,
        }


def _torchvision(name: str, model: str, head: str = "lraspp", **settings: Any) -> SegmenterSpec:
    """Returns a segmenter as torchvision's have it: ImageNet's mean and deviation, a short side of 520."""
    return SegmenterSpec(
        name=name,
        model=model,
        head=f"{head}_torchvision",
        image_size=520,
        padding="symmetric",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        **{"width_rule": "torchvision"} | settings,
    )


_REDUCED = {"v2": "v2_rf2", "v3_large": "v3_large_rf2", "v3_small": "v3_small_rf2"}  # as in the V3 paper, table 7

SEGMENTERS: dict[str, SegmenterSpec] = {
    spec.name: spec
    for spec in (
        _torchvision("lraspp_v3_large", "v3_large"),
        _torchvision("lraspp_v3_small", "v3_small"),
        _torchvision("lraspp_v2", "v2"),
        _torchvision("lraspp_v4_conv_medium", "v4_conv_medium", width_rule="tf"),
        _torchvision("deeplab_v3_large", "v3_large", "deeplab", auxiliary=True),
        *(
            SegmenterSpec(name=f"lraspp_{name}_tf", model=_REDUCED.get(name, name), head="lraspp", image_size=512)
            for name in ("v3_large", "v3_small", "v2", "v1", "v4_conv_small", "v4_conv_medium")
        ),
        *(
            SegmenterSpec(name=f"{head}_{name}_tf", model=name, head=head, image_size=513)
            for head in ("deeplab", "deeplab_aspp")
            for name in ("v1", "v2", "v3_large", "v3_small", "v4_conv_medium")
        ),
        SegmenterSpec(  # the published deeplabv3.tflite
            name="deeplab_v2_dm05_tf",
            model="v2",
            head="deeplab",
            image_size=257,
            width=0.5,
            width_rule="deeplab",
            output_stride=8,
        ),
    )
}


def find_mask_head(name: str) -> MaskHeadSpec:
    """Returns the head of that name.

    Raises:
      ValueError: if there is none; lists them and names the nearest.
    """
    check_choice("head", name, tuple(MASK_HEADS))
    return MASK_HEADS[name]


def find_segmenter(name: str) -> SegmenterSpec:
    """Returns the segmenter of that name.

    Raises:
      ValueError: if there is none; lists them and names the nearest.
    """
    check_choice("segmenter", name, tuple(SEGMENTERS))
    return SEGMENTERS[name]


def resolve_segmenter(
    segmenter: SegmenterSpec,
    num_classes: int,
    *,
    width: float | None = None,
    output_stride: int | None = None,
    auxiliary: bool | None = None,
) -> tuple[ModelPlan, MaskHeadPlan]:
    """Returns the plans of a segmenter's backbone, dilated and up to the maps that its head takes, and of its head.

    Args:
      segmenter: the pair.
      num_classes: of the map, with the background if there is one.
      width: multiplier of the backbone's widths; None: the segmenter's own.
      output_stride: 8, 16 or 32; None: the segmenter's own.
      auxiliary: whether training has an auxiliary head; None: as the segmenter has it.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    plan = segmenter.backbone(width)
    head = resolve_mask_head(
        find_mask_head(segmenter.head),
        plan,
        num_classes,
        output_stride=segmenter.output_stride if output_stride is None else output_stride,
        auxiliary=segmenter.auxiliary if auxiliary is None else auxiliary,
    )
    return trimmed(head.backbone(plan), head.taps), head
