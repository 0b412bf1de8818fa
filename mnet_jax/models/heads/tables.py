"""Heads for boxes as data, `HEADS`, and detectors of a head on a backbone, `DETECTORS`. Pure Python, no jax."""

import dataclasses
import math
from typing import ClassVar

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.boxes import HeadPlan, HeadSpec, Shape, resolve_head
from mnet_jax.models.heads.pair import PairSpec
from mnet_jax.models.heads.pyramid import PyramidSpec
from mnet_jax.models.heads.ssd import SsdSpec
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.plans import ModelPlan

# --- Anchors of SSD: six maps, scales .2 to .95 in even steps, and 1 above the last ---

MIN_SCALE, _MAX_SCALE = 0.2, 0.95  # both libraries' own


def _scales(low: float) -> tuple[float, ...]:
    return (*(low + (_MAX_SCALE - low) * k / 5 for k in range(6)), 1.0)


def _torchvision_anchors(low: float = MIN_SCALE) -> tuple[tuple[Shape, ...], ...]:
    """Returns those of torchvision's DefaultBoxGenerator: the square, the next larger square, then 2, 1/2, 3, 1/3.

    Six on each map, from the scale `low` on; neither side is longer than the image's.
    """
    scales = _scales(low)

    def shape(scale: float, ratio: float) -> Shape:
        return min(scale / math.sqrt(ratio), 1.0), min(scale * math.sqrt(ratio), 1.0)

    return tuple(
        (
            shape(scale, 1),
            shape(math.sqrt(scale * above), 1),
            *(shape(scale, ratio) for aspect in (2, 3) for ratio in (aspect, 1 / aspect)),
        )
        for scale, above in zip(scales, scales[1:], strict=False)
    )


def _tf_anchors(low: float = MIN_SCALE) -> tuple[tuple[Shape, ...], ...]:
    """Returns those of create_ssd_anchors in TensorFlow's multiple_grid_anchor_generator.py.

    Three on the first map (reduce_boxes_in_lowest_layer: a square of half the scale `low`, which is .1 there, and `low`
    at ratios 2 and 1/2); on the others ratios 1, 2, .5, 3 and .3333 (the configs', not 1/3), then the square between
    this scale and the next.
    """
    scales = _scales(low)

    def shape(scale: float, ratio: float) -> Shape:
        return scale / math.sqrt(ratio), scale * math.sqrt(ratio)

    first = (shape(low / 2, 1), shape(low, 2), shape(low, 0.5))
    return first, *(
        (
            *(shape(scale, ratio) for ratio in (1, 2, 0.5, 3, 0.3333)),
            shape(math.sqrt(scale * above), 1),
        )
        for scale, above in zip(scales[1:], scales[2:], strict=False)
    )


# --- Anchors of pyramids: the same for each map, in its strides ---

_TF_PYRAMID = tuple(  # multiscale_grid_anchor_generator.py: anchor_scale 4, two scales an octave, the scale the fastest
    (4 * scale / math.sqrt(ratio), 4 * scale * math.sqrt(ratio)) for ratio in (1, 2, 0.5) for scale in (1, math.sqrt(2))
)
_GARDEN_PYRAMID = tuple(  # vision/ops/anchor.py: anchor_size 3, three scales an octave, the ratio the fastest
    (3 * 2 ** (octave / 3) / math.sqrt(ratio), 3 * 2 ** (octave / 3) * math.sqrt(ratio))
    for octave in range(3)
    for ratio in (0.5, 1, 2)
)


# --- Heads ---

_EXTRAS = (512, 256, 256, 128)
_TF = "TensorFlow Object Detection API"
_TF_BIAS = -4.6  # class_prediction_bias_init of its focal configs: scores of about .01 at first

HEADS: dict[str, HeadSpec] = {
    spec.name: spec
    for spec in (
        SsdSpec(
            name="ssdlite_torchvision",
            source="torchvision, detection/ssdlite.py",
            first_map="expansion",
            extras=_EXTRAS,
            separable=True,
            anchors=_torchvision_anchors(),
            anchor_unit="sides",
            scores="softmax",
            deviation=0.03,
        ),
        SsdSpec(
            name="ssdlite_tf",
            source=f"{_TF}, ssdlite_mobilenet_v3_large_320x320_coco.config",
            first_map="expansion",
            extras=_EXTRAS,
            separable=True,
            anchors=_tf_anchors(),
            anchor_unit="short",
            scores="sigmoid",
            deviation=0.03,
            class_bias=_TF_BIAS,
        ),
        SsdSpec(
            name="ssd_tf",
            source=f"{_TF}, ssd_mobilenet_v2_320x320_coco17_tpu-8.config",
            first_map="expansion",
            extras=_EXTRAS,
            separable=False,
            anchors=_tf_anchors(),
            anchor_unit="short",
            scores="sigmoid",
            deviation=0.01,
            class_bias=_TF_BIAS,
        ),
        PyramidSpec(
            name="fpnlite_tf",
            source=f"{_TF}, ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8.config",
            neck="object_detection",
            last_map="last",
            features=128,
            separable=True,
            anchors=_TF_PYRAMID,
            centres="edges",
            one_tower=True,
            tower_bias=False,
            class_bias=_TF_BIAS,
        ),
        PyramidSpec(
            name="fpn_tf",
            source=f"{_TF}, ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8.config",
            neck="object_detection",
            last_map="last",
            features=256,
            separable=False,
            anchors=_TF_PYRAMID,
            centres="edges",
            one_tower=False,
            tower_bias=False,
            class_bias=_TF_BIAS,
        ),
        # V4 paper, table 7: "256-wide separable FPN, 256-wide head of 4 separable convolutions". The counts of five of
        # its rows are those of the model garden's code with this. It says nothing of anchors, activation and losses:
        # those are of the garden's own mobile detector (coco_mobilenetv3.5_avg_tpu.yaml, configs/retinanet.py).
        PyramidSpec(
            name="retinanet_garden",
            source="arXiv 2404.10518, table 7; TensorFlow model garden, official/vision, retinanet",
            neck="model_garden",
            last_map="output",
            features=256,
            separable=True,
            anchors=_GARDEN_PYRAMID,
            centres="strides",
            one_tower=False,
            tower_bias=True,
            class_bias=-math.log((1 - 0.01) / 0.01),
            code_scales=(1.0, 1.0, 1.0, 1.0),
            focal_gamma=1.5,
            huber_delta=0.1,
        ),
    )
}

_SCALED = {"ssdlite_torchvision": _torchvision_anchors, "ssdlite_tf": _tf_anchors, "ssd_tf": _tf_anchors}


# --- Detectors ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectorSpec(PairSpec):
    """A head of `HEADS` on a backbone."""

    task: ClassVar[str] = "detection"
    norm_decay: float = 0.97


def _torchvision(name: str, model: str, width_rule: str = "torchvision") -> DetectorSpec:
    """Returns a detector as torchvision's ssdlite320_mobilenet_v3_large has it (batch norm: 1 - .03, and 1e-3)."""
    return DetectorSpec(
        name=name,
        model=model,
        head="ssdlite_torchvision",
        image_size=320,
        width_rule=width_rule,
        padding="symmetric",
    )


DETECTORS: dict[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        _torchvision("ssdlite320_v3_large", "v3_large_halved"),
        _torchvision("ssdlite320_v3_large_full", "v3_large"),  # torchvision's from an ImageNet backbone
        _torchvision("ssdlite320_v3_small", "v3_small_halved"),
        _torchvision("ssdlite320_v2", "v2"),
        _torchvision("ssdlite320_v1", "v1", "tf"),
        _torchvision("ssdlite320_v4_conv_small", "v4_conv_small", "tf"),
        _torchvision("ssdlite320_v4_conv_medium", "v4_conv_medium", "tf"),
        _torchvision("ssdlite320_v4_hybrid_medium", "v4_hybrid_medium", "tf"),
        *(
            DetectorSpec(name=f"ssdlite320_{name}_tf", model=model, head="ssdlite_tf", image_size=320)
            for name, model in (
                ("v3_large", "v3_large_halved"),
                ("v3_small", "v3_small_halved"),
                ("v2", "v2"),
                ("v1", "v1"),
                ("v4_conv_small", "v4_conv_small"),
                ("v4_conv_medium", "v4_conv_medium"),
                ("v4_hybrid_medium", "v4_hybrid_medium"),
            )
        ),
        DetectorSpec(name="ssd300_v1", model="v1", head="ssd_tf", image_size=300),
        DetectorSpec(name="ssd300_v2", model="v2", head="ssd_tf", image_size=300),
        DetectorSpec(name="fpnlite320_v2", model="v2", head="fpnlite_tf", image_size=320, norm_decay=0.997),
        DetectorSpec(name="fpnlite640_v2", model="v2", head="fpnlite_tf", image_size=640, norm_decay=0.997),
        DetectorSpec(name="fpn640_v1", model="v1", head="fpn_tf", image_size=640, norm_decay=0.997),
        DetectorSpec(
            name="retinanet384_v4_conv_medium",
            model="v4_conv_medium",
            head="retinanet_garden",
            image_size=384,
            norm_decay=0.99,
        ),
        DetectorSpec(
            name="retinanet384_v4_hybrid_medium",
            model="v4_hybrid_medium",
            head="retinanet_garden",
            image_size=384,
            norm_decay=0.99,
        ),
    )
}


def find_head(name: str, *, min_scale: float | None = None) -> HeadSpec:
    """Returns the head of that name.

    Args:
      name: of `HEADS`.
      min_scale: the scale of the first map's anchors, a share of the image's side; None: as published.

    Raises:
      ValueError: if there is none; lists them and names the nearest. Or if its anchors have no such scale.
    """
    check_choice("head", name, tuple(HEADS))
    if min_scale is None:
        return HEADS[name]
    if name not in _SCALED:
        raise ValueError(f"task.min_scale goes with task.head {', '.join(_SCALED)}, not with {name}; leave it None")
    return dataclasses.replace(HEADS[name], anchors=_SCALED[name](min_scale))


def rescalable(spec: HeadSpec) -> bool:
    """Returns whether `find_head` gives this head with anchors of another smallest scale."""
    return spec.name in _SCALED


def find_detector(name: str) -> DetectorSpec:
    """Returns the detector of that name.

    Raises:
      ValueError: if there is none; lists them and names the nearest.
    """
    check_choice("detector", name, tuple(DETECTORS))
    return DETECTORS[name]


def resolve_detector(
    detector: DetectorSpec, num_classes: int, *, width: float | None = None
) -> tuple[ModelPlan, HeadPlan]:
    """Returns the plans of a detector's backbone, up to the maps that its head takes, and of its head.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    plan = detector.backbone(width)
    head = resolve_head(find_head(detector.head), plan, num_classes)
    return trimmed(plan, head.taps), head
