"""What torchvision calls the layers of its lraspp_ and deeplabv3_mobilenet_v3_large."""

from collections.abc import Iterator

from mnet_jax.models import plans
from mnet_jax.models.heads.masks import DeeplabPlan, LrasppPlan, MaskHeadPlan
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.plans import Variable
from mnet_jax.models.variables import list_variables
from mnet_jax.pretrained.layouts import TORCHVISION, Modules

SEGMENTERS = ("lraspp_v3_large", "deeplab_v3_large")  # of `models.heads.mask_tables.SEGMENTERS`: what it has published


def names(plan: plans.ModelPlan, head: MaskHeadPlan) -> Iterator[tuple[Variable, str]]:
    """Returns every variable of the segmenter, with its name in the library's files."""
    there, norm = modules(plan, head), TORCHVISION.norms[type(head.norm)]
    for variable in (*list_variables(trimmed(plan, head.taps)), *head.variables()):
        *scope, leaf = variable.path
        theirs = norm[leaf] if scope[-1] == "norm" else TORCHVISION.leaves[leaf]
        yield variable, there["/".join(scope)] + TORCHVISION.separator + theirs


def modules(plan: plans.ModelPlan, head: MaskHeadPlan) -> Modules:
    """Returns the library's module for each scope; of the backbone it keeps the list "features", as "backbone"."""
    backbone = {
        ours: f"backbone.{theirs.removeprefix('features.')}"
        for ours, theirs in TORCHVISION.modules(plan).items()
        if theirs.startswith("features.")
    }
    match head:
        case LrasppPlan():
            return backbone | _lraspp(head)
        case DeeplabPlan():
            return backbone | _deeplab(head)


def _lraspp(head: LrasppPlan) -> Modules:
    return {
        **_normed(head.project, "classifier.cbr", 0),
        head.gate.name: "classifier.scale.1",
        head.classes.name: "classifier.high_classifier",
        head.low_classes.name: "classifier.low_classifier",
    }


def _deeplab(head: DeeplabPlan) -> Modules:
    place = "classifier.0.convs"
    found = _normed(head.local, f"{place}.0", 0)
    for number, layer in enumerate(head.wider, 1):
        found |= _normed(layer, f"{place}.{number}", 0)
    found |= _normed(head.pooled, f"{place}.{len(head.wider) + 1}", 1)  # 0 is the pool
    found |= _normed(head.merge, "classifier.0.project", 0)
    found |= _normed(head.refine, "classifier", 1)
    found[head.classes.name] = "classifier.4"
    if head.has_auxiliary:
        found |= _normed(head.auxiliary, "aux_classifier", 0)
        found[head.auxiliary_classes.name] = "aux_classifier.4"
    return found


def _normed(layer: plans.ConvPlan, place: str, number: int) -> Modules:
    """Returns the modules of a convolution and of the norm that follows it, numbered in `place`."""
    return {layer.name: f"{place}.{number}", f"{layer.name}/norm": f"{place}.{number + 1}"}
