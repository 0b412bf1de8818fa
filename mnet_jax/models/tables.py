"""Every architecture as data: `SPECS`, name -> ModelSpec. Row order and columns are those of the papers' tables."""

import dataclasses
import math

from mnet_jax.errors import check_choice
from mnet_jax.models.blocks import Conv, InvertedResidual, Separable
from mnet_jax.models.plans import BatchNorm
from mnet_jax.models.specs import Head, ModelSpec
from mnet_jax.models.tables_edgetpu import MOBILENET_EDGETPU
from mnet_jax.models.tables_v4 import MOBILENET_V4, TIMM_SOURCE, TIMM_V4
from mnet_jax.models.tables_v5 import MOBILENET_V5
from mnet_jax.models.widths import WidthRule

# Norms. All epsilons are TensorFlow's 1e-3. Decays: model garden .997 (V1, V2; slim trained V1 with .9997, too slow for
# runs under some 20,000 steps), V3 .99 (arXiv 1905.02244, section 6.1.1).
_GARDEN_NORM = BatchNorm(decay=0.997, epsilon=1e-3)
_V3_NORM = BatchNorm(decay=0.99, epsilon=1e-3)

# Width rules: "tf" as in slim and the model garden, "timm" as in its mobilenetv3.py and efficientnet.py, "torchvision"
# as in its mobilenetv2.py and mobilenetv3.py, "deeplab" as in TensorFlow's DeepLab, whose V2 differs from "tf" below 1.
_V1_RULES = {"tf": WidthRule(rounded=False), "timm": WidthRule()}
_V2_RULE = WidthRule(last_conv="grow")
_V2_RULES = {
    **{library: _V2_RULE for library in ("tf", "timm", "torchvision")},
    "deeplab": WidthRule(last_conv="grow", whole_below_one=True),
}
_V3_RULES = {
    "tf": WidthRule(),
    "timm": WidthRule(stem_fixed_below=0.75, head="fixed"),
    "torchvision": WidthRule(expand_from_input=False, last_conv="from_input", head="scale"),
}


# MobileNetV1: (features, stride) of the separable blocks, arXiv 1704.04861, table 1.
_V1_ROWS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),  # the table prints stride 2 for this last depthwise layer; its output size, slim and Keras say 1
)

# MobileNetV2: (t expansion, c features, n repeats, s stride of the first), arXiv 1801.04381, table 2.
_V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _v2_blocks(rows: tuple = _V2_ROWS) -> tuple[InvertedResidual, ...]:
    blocks = []
    in_features = 32
    for expand, features, repeats, stride in rows:
        for repeat in range(repeats):
            blocks.append(
                InvertedResidual(
                    expanded=in_features * expand,
                    features=features,
                    stride=1 if repeat else stride,
                    activation="relu6",
                )
            )
            in_features = features
    return tuple(blocks)


def _v2(name: str, source: str, rows: tuple, last: int) -> ModelSpec:
    return ModelSpec(
        name=name,
        source=source,
        image_size=224,
        stem=Conv(kernel=3, features=32, stride=2, activation="relu6"),
        blocks=_v2_blocks(rows),
        last_conv=Conv(kernel=1, features=last, activation="relu6"),
        dropout=0.2,
        norm=_GARDEN_NORM,
        width_rules=_V2_RULES,
    )


# MobileNetV3: (kernel, expanded, features, squeeze-excite, activation, stride), arXiv 1905.02244, tables 1 and 2.
_RE, _HS = "relu", "hard_swish"
_V3_LARGE_ROWS = (
    (3, 16, 16, False, _RE, 1),
    (3, 64, 24, False, _RE, 2),
    (3, 72, 24, False, _RE, 1),
    (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1),
    (5, 120, 40, True, _RE, 1),
    (3, 240, 80, False, _HS, 2),
    (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1),
    (3, 480, 112, True, _HS, 1),
    (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2),
    (5, 960, 160, True, _HS, 1),
    (5, 960, 160, True, _HS, 1),
)
_V3_SMALL_ROWS = (
    (3, 16, 16, True, _RE, 2),
    (3, 72, 24, False, _RE, 2),
    (3, 88, 24, False, _RE, 1),
    (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1),
    (5, 240, 40, True, _HS, 1),
    (5, 120, 48, True, _HS, 1),
    (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2),
    (5, 576, 96, True, _HS, 1),
    (5, 576, 96, True, _HS, 1),
)


def _halved(rows: tuple, first: int, *, inside: bool = False) -> tuple:
    """Returns a V3's rows with half the features from row `first` on, inside the blocks after it too.

    `inside`: inside the first one as well.
    """
    later = ((kernel, expanded // 2, features // 2, *rest) for kernel, expanded, features, *rest in rows[first:])
    kernel, expanded, features, *rest = rows[first]
    changed = tuple(later)
    return *rows[:first], *(changed if inside else ((kernel, expanded, features // 2, *rest), *changed[1:]))


def _v3(name: str, source: str, rows: tuple, last: int, head: int, *, minimalistic: bool = False) -> ModelSpec:
    """Returns a V3; `minimalistic`: kernels of 3, no squeeze-excite, ReLU everywhere (slim's V3_LARGE_MINIMALISTIC)."""
    blocks = tuple(
        InvertedResidual(
            kernel=3 if minimalistic else kernel,
            expanded=expanded,
            features=features,
            squeeze_excite=squeeze_excite and not minimalistic,
            activation=_RE if minimalistic else activation,
            stride=stride,
        )
        for kernel, expanded, features, squeeze_excite, activation, stride in rows
    )
    activation = _RE if minimalistic else _HS
    return ModelSpec(
        name=name,
        source=source,
        image_size=224,
        stem=Conv(kernel=3, features=16, stride=2, activation=activation),
        blocks=blocks,
        last_conv=Conv(kernel=1, features=last, activation=activation),
        head=Head(features=head, bias=True, activation=activation),
        dropout=0.2,
        norm=_V3_NORM,
        width_rules=_V3_RULES,
    )


# Of which no classifier is published.
BACKBONES = ("v2_rf2", "v3_large_halved", "v3_small_halved", "v3_large_rf2", "v3_small_rf2")
_HALVED = "MobileNetV3, arXiv 1905.02244, section 6.3"
_RF2 = "MobileNetV3, arXiv 1905.02244, table 7"
_V1_TO_V3 = (
    ModelSpec(
        name="v1",
        source="MobileNetV1, arXiv 1704.04861, table 1",
        image_size=224,
        stem=Conv(kernel=3, features=32, stride=2, activation="relu6"),
        blocks=tuple(Separable(features=features, stride=stride, activation="relu6") for features, stride in _V1_ROWS),
        dropout=0.001,  # slim's mobilenet_v1.py
        norm=_GARDEN_NORM,
        width_rules=_V1_RULES,
    ),
    _v2("v2", "MobileNetV2, arXiv 1801.04381, table 2", _V2_ROWS, 1280),
    _v3("v3_large", "MobileNetV3, arXiv 1905.02244, table 1", _V3_LARGE_ROWS, 960, 1280),
    _v3("v3_small", "MobileNetV3, arXiv 1905.02244, table 2", _V3_SMALL_ROWS, 576, 1024),
    # For detection and segmentation: "channels between C4 and C5 halved" (V3 paper, section 6.3; torchvision's
    # `reduced_tail`). Halved above the maps, too, as torchvision has it; no classifier of these is published.
    _v3("v3_large_halved", _HALVED, _halved(_V3_LARGE_ROWS, 12), 480, 640),
    _v3("v3_small_halved", _HALVED, _halved(_V3_SMALL_ROWS, 8), 288, 512),
    # For masks: "the channels in the last block of the network backbone reduced by a factor of 2" (the same, table 7,
    # "RF2"). Which channels follows from the parameters printed there: of V3 those inside the strided block too.
    _v2("v2_rf2", _RF2, (*_V2_ROWS[:5], (6, 80, 3, 2), (6, 160, 1, 1)), 640),
    _v3("v3_large_rf2", _RF2, _halved(_V3_LARGE_ROWS, 12, inside=True), 480, 640),
    _v3("v3_small_rf2", _RF2, _halved(_V3_SMALL_ROWS, 8, inside=True), 288, 512),
    _v3("v3_large_minimalistic", "slim, mobilenet_v3.py", _V3_LARGE_ROWS, 960, 1280, minimalistic=True),
    _v3("v3_small_minimalistic", "slim, mobilenet_v3.py", _V3_SMALL_ROWS, 576, 1024, minimalistic=True),
)


# --- timm's own, with which it published weights: mobilenetv3.py and efficientnet.py ---

# Deeper at the middle; the stem and the last convolution are as wide at every width.
_DEEP_V2_RULES = dict.fromkeys(("tf", "timm"), WidthRule(stem_fixed_below=math.inf, last_conv="fixed"))
_DEEP_V3_ROWS = (
    *_V3_LARGE_ROWS[:1] * 2,
    *_V3_LARGE_ROWS[1:3],
    _V3_LARGE_ROWS[2],
    *_V3_LARGE_ROWS[3:6],
    _V3_LARGE_ROWS[5],
    *_V3_LARGE_ROWS[6:8],
    _V3_LARGE_ROWS[7],
    *_V3_LARGE_ROWS[8:12],
    _V3_LARGE_ROWS[11],
    *_V3_LARGE_ROWS[12:],
    _V3_LARGE_ROWS[14],
)


def _deep_v2(name: str, depth: str, repeats: tuple[int, ...]) -> ModelSpec:
    rows = tuple(
        (expand, features, n, stride) for (expand, features, _, stride), n in zip(_V2_ROWS, repeats, strict=True)
    )
    spec = _v2(name, f"timm, efficientnet.py: MobileNetV2, depth {depth}", rows, 1280)
    return dataclasses.replace(spec, width_rules=_DEEP_V2_RULES)


def _deep_v3() -> ModelSpec:
    """Returns V3-Large at depth 1.2, where the last convolution comes twice: the first is the last block."""
    spec = _v3("v3_large_d12", f"{TIMM_SOURCE}: MobileNetV3-Large, depth 1.2", _DEEP_V3_ROWS, 960, 1280)
    return dataclasses.replace(spec, blocks=(*spec.blocks, spec.last_conv))


def _v3_rw() -> ModelSpec:
    """Returns an early reading of V3-Large: its gates, its first block and its head differ."""
    spec = _v3("v3_rw", f"{TIMM_SOURCE}: MobileNetV3-Large, an early reading", _V3_LARGE_ROWS, 960, 1280)
    blocks = [
        dataclasses.replace(block, squeeze_divisor=1, squeeze_activation=block.activation) for block in spec.blocks
    ]
    blocks[0] = dataclasses.replace(blocks[0], residual=False)
    return dataclasses.replace(
        spec,
        blocks=tuple(blocks),
        head=Head(features=1280, activation=_HS),
        width_rules={"tf": _V3_RULES["tf"], "timm": WidthRule(head="fixed")},
    )


_TIMM = (
    dataclasses.replace(
        _V1_TO_V3[0],
        name="v1_h",
        source="timm, efficientnet.py: MobileNetV1 with a last convolution",
        last_conv=Conv(kernel=1, features=1024, activation="relu6"),
        width_rules={library: dataclasses.replace(rule, last_conv="grow") for library, rule in _V1_RULES.items()},
    ),
    _deep_v2("v2_d12", "1.2", (1, 3, 4, 5, 4, 4, 1)),
    _deep_v2("v2_d14", "1.4", (1, 3, 5, 6, 5, 5, 1)),
    _deep_v3(),
    _v3_rw(),
    *TIMM_V4,
    *MOBILENET_V5,
    *MOBILENET_EDGETPU,
)

# In no paper: variants of the others, the Edge TPU's and V5. The chart of published accuracies leaves them out.
VARIANTS = tuple(spec.name for spec in _TIMM)
SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in (*_V1_TO_V3, *MOBILENET_V4, *_TIMM)}


def list_models() -> list[str]:
    """Returns the names of all architectures."""
    return list(SPECS)


def find_spec(name: str) -> ModelSpec:
    """Returns the architecture of that name.

    Raises:
      ValueError: if there is none; lists them and names the nearest.
    """
    check_choice("model", name, list_models())
    return SPECS[name]
