"""What other libraries call the layers of a plan, and how they lay their arrays out: timm, torchvision and Keras.

A layout names the library's module for each scope of ours (a scope is a path such as "block_03/expand", or
"block_03/expand/norm" for the norm in it). Names are derived from the resolved plan alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mnet_jax.models import blocks, plans
from mnet_jax.models.plans import Variable
from mnet_jax.models.variables import list_variables

Modules = dict[str, str]  # our scope -> their module


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How one library writes down the variables of a network."""

    name: str
    modules: Callable[[plans.ModelPlan], Modules]
    models: tuple[str, ...]  # the architectures that the library has
    width_rule: str
    separator: str  # between a module's name and a leaf's
    leaves: Mapping[str, str]  # our leaf -> theirs; "norm/bias" is that of a norm
    axes: tuple[int, ...]  # their axes of a convolution's kernel, in our order: [k, k, in, out]
    depthwise_axes: tuple[int, ...]  # to [k, k, 1, C]
    dense_axes: tuple[int, ...]  # to [in, out]

    def names(self, plan: plans.ModelPlan) -> Iterator[tuple[Variable, str]]:
        """Every variable of the plan, with its name in the library's files."""
        modules = self.modules(plan)
        for variable in list_variables(plan):
            *scope, leaf = variable.path
            key = f"norm/{leaf}" if scope[-1] == "norm" else leaf
            yield variable, modules["/".join(scope)] + self.separator + self.leaves[key]

    def kernel_axes(self, variable: Variable, rank: int) -> tuple[int, ...]:
        """The order in which to take the axes of their array of `rank` axes."""
        if not variable.path[-1].endswith("kernel"):
            return tuple(range(rank))
        if rank == 2:
            return self.dense_axes
        return self.depthwise_axes if variable.path[-1] == "depthwise_kernel" else self.axes

    def view(self, array: np.ndarray, variable: Variable) -> np.ndarray:
        """Their array with our axes, without a copy; whether the shape is the variable's is for the caller to see."""
        axes = self.kernel_axes(variable, array.ndim)
        if len(axes) != array.ndim:
            return array
        array = array.transpose(axes)
        pointwise = len(variable.shape) == 2 and array.ndim == 4 and array.shape[:2] == (1, 1)
        return array[0, 0] if pointwise else array  # there, pointwise layers are convolutions


_TORCH_LEAVES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "norm/scale": "weight",
    "norm/bias": "bias",
    "norm/mean": "running_mean",
    "norm/var": "running_var",
    "layer_scale": "layer_scale.gamma",
}
_TORCH_AXES = {"axes": (2, 3, 1, 0), "depthwise_axes": (2, 3, 1, 0), "dense_axes": (1, 0)}


# --- timm: mobilenetv3.py and efficientnet.py, with the blocks of _efficientnet_blocks.py ---

# How many blocks each of its stages has. V3's and V4's last convolution is a stage of its own.
_TIMM_STAGES = {
    "v1": (1, 2, 2, 6, 2),
    "v2": (1, 2, 3, 4, 3, 3, 1),
    "v3_large": (1, 2, 3, 4, 2, 3),
    "v3_small": (1, 2, 3, 2, 3),
    "v3_large_minimalistic": (1, 2, 3, 4, 2, 3),
    "v3_small_minimalistic": (1, 2, 3, 2, 3),
    "v4_conv_small": (2, 2, 6, 6),
    "v4_conv_medium": (1, 2, 8, 11),
    "v4_conv_large": (1, 2, 11, 13),
    "v4_hybrid_medium": (1, 2, 12, 16),
    "v4_hybrid_large": (1, 2, 15, 18),
}


def _timm_block(block: plans.BlockPlan) -> Modules:
    match block:
        case blocks.ConvBlockPlan():
            return {"conv": "conv", "conv/norm": "bn1"}
        case blocks.SeparablePlan():
            return {"depthwise": "conv_dw", "depthwise/norm": "bn1", "pointwise": "conv_pw", "pointwise/norm": "bn2"}
        case blocks.InvertedResidualPlan(expand=None):
            return {
                "depthwise": "conv_dw",
                "depthwise/norm": "bn1",
                "se/reduce": "se.conv_reduce",
                "se/expand": "se.conv_expand",
                "project": "conv_pw",
                "project/norm": "bn2",
            }
        case blocks.InvertedResidualPlan():
            return {
                "expand": "conv_pw",
                "expand/norm": "bn1",
                "depthwise": "conv_dw",
                "depthwise/norm": "bn2",
                "se/reduce": "se.conv_reduce",
                "se/expand": "se.conv_expand",
                "project": "conv_pwl",
                "project/norm": "bn3",
            }
        case blocks.FusedInvertedBottleneckPlan():
            return {"expand": "conv_exp", "expand/norm": "bn1", "project": "conv_pwl", "project/norm": "bn2"}
        case blocks.UniversalInvertedBottleneckPlan():
            theirs = {
                "start_depthwise": "dw_start",
                "expand": "pw_exp",
                "middle_depthwise": "dw_mid",
                "project": "pw_proj",
            }
            return {ours: f"{name}.conv" for ours, name in theirs.items()} | {
                f"{ours}/norm": f"{name}.bn" for ours, name in theirs.items()
            }
        case blocks.MultiQueryAttentionPlan():
            return {
                "norm": "norm",
                "query": "attn.query.proj",
                "key_depthwise": "attn.key.down_conv",
                "key_depthwise/norm": "attn.key.norm",
                "key": "attn.key.proj",
                "value_depthwise": "attn.value.down_conv",
                "value_depthwise/norm": "attn.value.norm",
                "value": "attn.value.proj",
                "output": "attn.output.proj",
            }
    raise TypeError(block)


def _timm_modules(plan: plans.ModelPlan) -> Modules:
    modules = {"stem": "conv_stem", "stem/norm": "bn1", "classifier": "classifier", "head": "conv_head"}
    stages = _TIMM_STAGES[plan.name]
    places = [f"blocks.{stage}.{index}" for stage, length in enumerate(stages) for index in range(length)]
    for block, place in zip(plan.blocks, places, strict=True):
        modules[block.name] = place  # holds layer_scale
        modules |= {f"{block.name}/{ours}": f"{place}.{theirs}" for ours, theirs in _timm_block(block).items()}
    if plan.head is None:
        return modules | {"last_conv": "conv_head", "last_conv/norm": "bn2"}
    last = f"blocks.{len(stages)}.0"
    return modules | {"last_conv": f"{last}.conv", "last_conv/norm": f"{last}.bn1", "head/norm": "norm_head"}


TIMM = Layout(
    name="timm",
    modules=_timm_modules,
    models=tuple(_TIMM_STAGES),
    width_rule="timm",
    separator=".",
    leaves=_TORCH_LEAVES,
    **_TORCH_AXES,
)


# --- torchvision: mobilenetv2.py and mobilenetv3.py, modules numbered within nn.Sequential ---


def _torchvision_modules(plan: plans.ModelPlan) -> Modules:
    last = f"features.{len(plan.blocks) + 1}"
    modules = {
        "stem": "features.0.0",
        "stem/norm": "features.0.1",
        "last_conv": f"{last}.0",
        "last_conv/norm": f"{last}.1",
        "head": "classifier.0",
        "classifier": "classifier.1" if plan.head is None else "classifier.3",
    }
    for number, block in enumerate(plan.blocks, 1):
        layers = [layer.name for layer in block.layers]
        for place, layer in enumerate(layers):
            name = f"{block.name}/{layer}"
            if layer == "se":
                modules[f"{name}/reduce"] = f"features.{number}.block.{place}.fc1"
                modules[f"{name}/expand"] = f"features.{number}.block.{place}.fc2"
            elif plan.name == "v2" and layer == "project":  # convolution and norm are not wrapped there
                modules[name] = f"features.{number}.conv.{place}"
                modules[f"{name}/norm"] = f"features.{number}.conv.{place + 1}"
            else:
                inside = f"features.{number}.{'conv' if plan.name == 'v2' else 'block'}.{place}"
                modules[name], modules[f"{name}/norm"] = f"{inside}.0", f"{inside}.1"
    return modules


TORCHVISION = Layout(
    name="torchvision",
    modules=_torchvision_modules,
    models=("v2", "v3_large", "v3_small"),
    width_rule="torchvision",
    separator=".",
    leaves=_TORCH_LEAVES,
    **_TORCH_AXES,
)


# --- Keras: applications/mobilenet.py, mobilenet_v2.py and mobilenet_v3.py; names in lower case, "/" as "_" ---

_KERAS_ENDS = {
    "v1": {"stem": "conv1", "stem/norm": "conv1_bn", "classifier": "conv_preds"},
    "v2": {
        "stem": "conv1",
        "stem/norm": "bn_conv1",
        "last_conv": "conv_1",
        "last_conv/norm": "conv_1_bn",
        "classifier": "predictions",
    },
    "v3": {
        "stem": "conv",
        "stem/norm": "conv_bn",
        "last_conv": "conv_1",
        "last_conv/norm": "conv_1_bn",
        "head": "conv_2",
        "classifier": "logits",
    },
}


def _keras_modules(plan: plans.ModelPlan) -> Modules:
    family = plan.name[:2]
    modules = dict(_KERAS_ENDS[family])
    for number, block in enumerate(plan.blocks):
        ours = block.name
        if family == "v1":
            for layer, theirs in (("depthwise", "dw"), ("pointwise", "pw")):
                modules[f"{ours}/{layer}"] = f"conv_{theirs}_{number + 1}"
                modules[f"{ours}/{layer}/norm"] = f"conv_{theirs}_{number + 1}_bn"
            continue
        later = f"block_{number}" if family == "v2" else f"expanded_conv_{number}"
        prefix = later if number else "expanded_conv"
        for layer in ("expand", "depthwise", "project"):
            modules[f"{ours}/{layer}"] = f"{prefix}_{layer}"
            modules[f"{ours}/{layer}/norm"] = f"{prefix}_{layer}_bn"
        modules[f"{ours}/se/reduce"] = f"{prefix}_squeeze_excite_conv"
        modules[f"{ours}/se/expand"] = f"{prefix}_squeeze_excite_conv_1"
    return modules


KERAS = Layout(
    name="keras",
    modules=_keras_modules,
    models=("v1", "v2", "v3_large", "v3_small", "v3_large_minimalistic", "v3_small_minimalistic"),
    width_rule="tf",
    separator="/",
    leaves={
        "kernel": "kernel",
        "depthwise_kernel": "kernel",
        "bias": "bias",
        "norm/scale": "gamma",
        "norm/bias": "beta",
        "norm/mean": "moving_mean",
        "norm/var": "moving_variance",
    },
    axes=(0, 1, 2, 3),
    depthwise_axes=(0, 1, 3, 2),
    dense_axes=(0, 1),
)

# --- Keras 3's .weights.h5 of its first versions: no names, each kind of layer is counted in the order of the model ---


def _keras_numbered_modules(plan: plans.ModelPlan) -> Modules:
    counts: dict[str, int] = {}
    modules = {}
    for variable in list_variables(plan):
        scope = "/".join(variable.path[:-1])
        if scope in modules:
            continue
        if variable.path[-1] == "depthwise_kernel":
            kind = "depthwise_conv2d"
        elif variable.path[-2] == "norm":
            kind = "batch_normalization"
        else:
            kind = "dense" if scope == "classifier" and plan.name == "v2" else "conv2d"
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        modules[scope] = f"{kind}_{number}" if number else kind
    return modules


KERAS_NUMBERED = dataclasses.replace(KERAS, modules=_keras_numbered_modules)

LAYOUTS = {layout.name: layout for layout in (TIMM, TORCHVISION, KERAS)}
