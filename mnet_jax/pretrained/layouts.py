"""What other libraries call the layers of a plan, and how they lay their arrays out: timm, torchvision and Keras.

A layout names the library's module for each scope of ours (a scope is a path such as "block_03/expand", or
"block_03/expand/norm" for the norm in it), kind of block by kind of block. Names are derived from the resolved plan
alone.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mnet_jax.models import blocks, plans
from mnet_jax.models.plans import Variable
from mnet_jax.models.variables import list_variables

Modules = dict[str, str]  # our scope -> their module
# (the network, a block, where the library has it) -> modules of the scopes inside the block
BlockNames = Callable[[plans.ModelPlan, plans.BlockPlan, str], Modules]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How one library writes down the variables of a network."""

    name: str
    models: tuple[str, ...]  # the architectures that the library has
    width_rule: str
    outside: Callable[[plans.ModelPlan], Modules]  # of the layers outside the blocks
    places: Callable[[plans.ModelPlan], Sequence[str]]  # where the library has each block
    blocks: Mapping[type[plans.BlockPlan], BlockNames]
    norms: Mapping[type[plans.Norm], Mapping[str, str]]  # of a norm our leaf -> theirs
    leaves: Mapping[str, str]  # of anything else
    separator: str  # between a module's name and a leaf's
    axes: tuple[int, ...]  # their axes of a convolution's kernel, in our order: [k, k, in, out]
    depthwise_axes: tuple[int, ...]  # to [k, k, 1, C]
    dense_axes: tuple[int, ...]  # to [in, out]

    def modules(self, plan: plans.ModelPlan) -> Modules:
        """Returns the library's module for each scope of the plan."""
        modules = self.outside(plan)
        for block, place in zip(plan.blocks, self.places(plan), strict=True):
            modules[block.name] = place  # holds layer_scale
            inside = self.blocks[type(block)](plan, block, place)
            modules |= {f"{block.name}/{ours}": theirs for ours, theirs in inside.items()}
        return modules

    def names(self, plan: plans.ModelPlan) -> Iterator[tuple[Variable, str]]:
        """Returns every variable of the plan, with its name in the library's files."""
        modules, norm = self.modules(plan), self.norms[type(plan.norm)]
        for variable in list_variables(plan):
            *scope, leaf = variable.path
            theirs = norm[leaf] if scope[-1] == "norm" else self.leaves[leaf]
            yield variable, modules["/".join(scope)] + self.separator + theirs

    def kernel_axes(self, variable: Variable, rank: int) -> tuple[int, ...]:
        """Returns the order in which to take the axes of their array of `rank` axes."""
        if not variable.path[-1].endswith("kernel"):
            return tuple(range(rank))
        if rank == 2:
            return self.dense_axes
        return self.depthwise_axes if variable.path[-1] == "depthwise_kernel" else self.axes

    def view(self, array: np.ndarray, variable: Variable) -> np.ndarray:
        """Returns their array with our axes, without a copy; whether the shape is the variable's the caller sees."""
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
    "layer_scale": "layer_scale.gamma",
}
_TORCH_NORMS = {
    plans.BatchNorm: {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"},
    plans.RmsNorm: {"scale": "weight"},
}
_TORCH_AXES = {"axes": (2, 3, 1, 0), "depthwise_axes": (2, 3, 1, 0), "dense_axes": (1, 0)}


# --- timm: mobilenetv3.py, mobilenetv5.py and efficientnet.py, with the blocks of _efficientnet_blocks.py ---

# How many blocks each of its stages has. V3's and V4's last convolution is a stage of its own.
_TIMM_STAGES = {
    "v1": (1, 2, 2, 6, 2),
    "v1_h": (1, 2, 2, 6, 2),
    "v2": (1, 2, 3, 4, 3, 3, 1),
    "v2_d12": (1, 3, 4, 5, 4, 4, 1),
    "v2_d14": (1, 3, 5, 6, 5, 5, 1),
    "v3_large": (1, 2, 3, 4, 2, 3),
    "v3_large_d12": (2, 3, 4, 5, 3, 4, 1),
    "v3_rw": (1, 2, 3, 4, 2, 3),
    "v3_small": (1, 2, 3, 2, 3),
    "v3_large_minimalistic": (1, 2, 3, 4, 2, 3),
    "v3_small_minimalistic": (1, 2, 3, 2, 3),
    "v4_conv_small": (2, 2, 6, 6),
    "v4_conv_medium": (1, 2, 8, 11),
    "v4_conv_large": (1, 2, 11, 13),
    "v4_hybrid_medium": (1, 2, 12, 16),
    "v4_hybrid_large": (1, 2, 15, 18),
    "v4_conv_aa_medium": (1, 2, 8, 11),  # after those whose arrays they have: files without a name are taken for these
    "v4_conv_aa_large": (1, 2, 11, 13),
    "v4_conv_blur_medium": (1, 2, 8, 11),
    "v5_300m": (3, 5, 37, 39),
    "v5_base": (3, 5, 16, 15),
    "edgetpu_v1": (1, 4, 4, 4, 4, 4, 1),
    **{f"edgetpu_v2_{size}": (1, 2, 4, 4, 4, 4, 1) for size in ("xs", "s", "m", "l")},
}


_TIMM_V5_OUTSIDE = {
    "stem": "conv_stem.conv",
    "stem/norm": "conv_stem.bn",
    "fusion/expand": "msfa.ffn.pw_exp.conv",
    "fusion/expand/norm": "msfa.ffn.pw_exp.bn",
    "fusion/project": "msfa.ffn.pw_proj.conv",
    "fusion/project/norm": "msfa.ffn.pw_proj.bn",
    "fusion/norm": "msfa.norm",
    "classifier": "classifier",
}


def _timm_outside(plan: plans.ModelPlan) -> Modules:
    if plan.fusion is not None:
        return dict(_TIMM_V5_OUTSIDE)
    modules = {"stem": "conv_stem", "stem/norm": "bn1", "classifier": "classifier", "head": "conv_head"}
    if plan.head is None:
        return modules | {"last_conv": "conv_head", "last_conv/norm": "bn2"}
    stages = _TIMM_STAGES[plan.name]
    repeated = isinstance(plan.blocks[-1], blocks.ConvBlockPlan)  # the last convolution is the second of its stage
    last = f"blocks.{len(stages) - 1}.{stages[-1]}" if repeated else f"blocks.{len(stages)}.0"
    return modules | {"last_conv": f"{last}.conv", "last_conv/norm": f"{last}.bn1", "head/norm": "norm_head"}


def _timm_places(plan: plans.ModelPlan) -> list[str]:
    stages = _TIMM_STAGES[plan.name]
    return [f"blocks.{stage}.{index}" for stage, length in enumerate(stages) for index in range(length)]


def _timm(names: Mapping[str, str]) -> BlockNames:
    """Returns names that are the same in each block of a kind."""
    return lambda plan, block, place: {ours: f"{place}.{theirs}" for ours, theirs in names.items()}


def _timm_inverted_residual(plan: plans.ModelPlan, block: blocks.InvertedResidualPlan, place: str) -> Modules:
    """Returns norms numbered in the order of running; the last of three convolutions has another name."""
    convs = {"depthwise": "conv_dw", "project": "conv_pw"}
    if block.expand is not None:
        convs = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    norms = {f"{layer}/norm": f"bn{number}" for number, layer in enumerate(convs, 1)}
    return _timm(convs | norms | {"se/reduce": "se.conv_reduce", "se/expand": "se.conv_expand"})(plan, block, place)


_TIMM_UIB = {"start_depthwise": "dw_start", "expand": "pw_exp", "middle_depthwise": "dw_mid", "project": "pw_proj"}

TIMM = Layout(
    name="timm",
    models=tuple(_TIMM_STAGES),
    width_rule="timm",
    outside=_timm_outside,
    places=_timm_places,
    blocks={
        blocks.ConvBlockPlan: _timm({"conv": "conv", "conv/norm": "bn1"}),
        blocks.SeparablePlan: _timm(
            {"depthwise": "conv_dw", "depthwise/norm": "bn1", "pointwise": "conv_pw", "pointwise/norm": "bn2"}
        ),
        blocks.InvertedResidualPlan: _timm_inverted_residual,
        blocks.FusedInvertedBottleneckPlan: _timm(
            {"expand": "conv_exp", "expand/norm": "bn1", "project": "conv_pwl", "project/norm": "bn2"}
        ),
        blocks.UniversalInvertedBottleneckPlan: _timm(
            {ours: f"{theirs}.conv" for ours, theirs in _TIMM_UIB.items()}
            | {f"{ours}/norm": f"{theirs}.bn" for ours, theirs in _TIMM_UIB.items()}
        ),
        blocks.MultiQueryAttentionPlan: _timm(
            {
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
        ),
    },
    norms=_TORCH_NORMS,
    leaves=_TORCH_LEAVES,
    separator=".",
    **_TORCH_AXES,
)


# --- torchvision: mobilenetv2.py and mobilenetv3.py, modules numbered within nn.Sequential ---


def _torchvision_outside(plan: plans.ModelPlan) -> Modules:
    last = f"features.{len(plan.blocks) + 1}"
    return {
        "stem": "features.0.0",
        "stem/norm": "features.0.1",
        "last_conv": f"{last}.0",
        "last_conv/norm": f"{last}.1",
        "head": "classifier.0",
        "classifier": "classifier.1" if plan.head is None else "classifier.3",
    }


def _torchvision_places(plan: plans.ModelPlan) -> list[str]:
    inside = "conv" if plan.name == "v2" else "block"
    return [f"features.{number}.{inside}" for number in range(1, len(plan.blocks) + 1)]


def _torchvision_inverted_residual(plan: plans.ModelPlan, block: blocks.InvertedResidualPlan, place: str) -> Modules:
    modules = {}
    for number, layer in enumerate(block.layers):
        name, theirs = layer.name, f"{place}.{number}"
        if layer is block.squeeze_excite:
            modules |= {f"{name}/reduce": f"{theirs}.fc1", f"{name}/expand": f"{theirs}.fc2"}
        elif plan.name == "v2" and layer is block.project:  # convolution and norm are not wrapped there
            modules |= {name: theirs, f"{name}/norm": f"{place}.{number + 1}"}
        else:
            modules |= {name: f"{theirs}.0", f"{name}/norm": f"{theirs}.1"}
    return modules


TORCHVISION = Layout(
    name="torchvision",
    models=("v2", "v3_large", "v3_small"),
    width_rule="torchvision",
    outside=_torchvision_outside,
    places=_torchvision_places,
    blocks={blocks.InvertedResidualPlan: _torchvision_inverted_residual},
    norms=_TORCH_NORMS,
    leaves=_TORCH_LEAVES,
    separator=".",
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


def _keras_places(plan: plans.ModelPlan) -> list[str]:
    """Returns the numbers of V1's blocks, and of the others what their names begin with."""
    family, numbers = plan.name[:2], range(len(plan.blocks))
    if family == "v1":
        return [str(number + 1) for number in numbers]
    later = "block" if family == "v2" else "expanded_conv"
    return [f"{later}_{number}" if number else "expanded_conv" for number in numbers]


def _keras_separable(plan: plans.ModelPlan, block: blocks.SeparablePlan, place: str) -> Modules:
    names = {"depthwise": f"conv_dw_{place}", "pointwise": f"conv_pw_{place}"}
    return names | {f"{layer}/norm": f"{theirs}_bn" for layer, theirs in names.items()}


def _keras_inverted_residual(plan: plans.ModelPlan, block: blocks.InvertedResidualPlan, place: str) -> Modules:
    names = {layer: f"{place}_{layer}" for layer in ("expand", "depthwise", "project")}
    gate = {"se/reduce": f"{place}_squeeze_excite_conv", "se/expand": f"{place}_squeeze_excite_conv_1"}
    return names | {f"{layer}/norm": f"{theirs}_bn" for layer, theirs in names.items()} | gate


KERAS = Layout(
    name="keras",
    models=("v1", "v2", "v3_large", "v3_small", "v3_large_minimalistic", "v3_small_minimalistic"),
    width_rule="tf",
    outside=lambda plan: dict(_KERAS_ENDS[plan.name[:2]]),
    places=_keras_places,
    blocks={blocks.SeparablePlan: _keras_separable, blocks.InvertedResidualPlan: _keras_inverted_residual},
    norms={plans.BatchNorm: {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}},
    leaves={"kernel": "kernel", "depthwise_kernel": "kernel", "bias": "bias"},
    separator="/",
    axes=(0, 1, 2, 3),
    depthwise_axes=(0, 1, 3, 2),
    dense_axes=(0, 1),
)


class _NumberedLayout(Layout):
    """Keras 3's .weights.h5 of its first versions: no names, each kind of layer is counted in the model's order."""

    def modules(self, plan: plans.ModelPlan) -> Modules:
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


KERAS_NUMBERED = _NumberedLayout(**{field.name: getattr(KERAS, field.name) for field in dataclasses.fields(KERAS)})

LAYOUTS = {layout.name: layout for layout in (TIMM, TORCHVISION, KERAS)}
