"""What torchvision calls the layers of its ssdlite320_mobilenet_v3_large, and how it lays its codes out."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from mnet_jax.models import plans
from mnet_jax.models.heads.boxes import HeadPlan
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.plans import Variable
from mnet_jax.models.variables import list_variables
from mnet_jax.pretrained.layouts import TORCHVISION, Layout, Modules


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxLayout:
    """How one library writes down the variables of a detector."""

    detectors: tuple[str, ...]  # of `models.heads.tables.DETECTORS`; the library's one or two of it
    base: Layout  # its leaves and axes, and its names of a backbone's layers
    code_order: tuple[int, int, int, int]  # of its four codes those that are ty, tx, th, tw

    def names(self, plan: plans.ModelPlan, head: HeadPlan) -> Iterator[tuple[Variable, str]]:
        """Returns every variable of the detector, with its name in the library's files."""
        modules = self.modules(plan, head)
        norm = self.base.norms[type(plan.norm)]
        for variable in (*list_variables(trimmed(plan, head.taps)), *head.variables()):
            *scope, leaf = variable.path
            theirs = norm[leaf] if scope[-1] == "norm" else self.base.leaves[leaf]
            yield variable, modules["/".join(scope)] + self.base.separator + theirs

    def modules(self, plan: plans.ModelPlan, head: HeadPlan) -> Modules:
        """Returns the library's module for each scope: torchvision cuts the backbone inside the block of the first map.

        "features.12..." is "backbone.features.0.12...", the block of the cut, 13, is "0.13" (its expansion) and
        "1.0" (its other parts, which keep their numbers), and those after it count on: "1.1", "1.2", ...
        """
        block = head.taps[0].path.partition("/")[0]
        cut = 1 + [block.name for block in plan.blocks].index(block)  # the stem is number 0

        def cut_in_two(theirs: str) -> str:
            _, number, *inside = theirs.split(".")
            if int(number) < cut:
                return ".".join(("backbone.features.0", number, *inside))
            if int(number) > cut:
                return ".".join(("backbone.features.1", str(int(number) - cut), *inside))
            _, part, *rest = (*inside, "")  # "block", the part's number, and what is in it
            if part == "0":
                return ".".join(("backbone.features.0", number, *filter(None, rest)))
            return ".".join(("backbone.features.1.0", *filter(None, (part, *rest))))

        backbone = {
            ours: cut_in_two(theirs)
            for ours, theirs in self.base.modules(plan).items()
            if theirs.startswith("features.")
        }
        return backbone | self._head_modules(head)

    def _head_modules(self, head: HeadPlan) -> Modules:
        modules = {}
        for number, layers in enumerate(head.extras):
            for part, layer in enumerate(layers):
                modules[layer.name] = f"backbone.extra.{number}.{part}.0"
                modules[f"{layer.name}/norm"] = f"backbone.extra.{number}.{part}.1"
        branches = (("classification_head", head.classes), ("regression_head", head.boxes))
        for name, maps in branches:
            for number, (spatial, last) in enumerate(maps):
                place = f"head.{name}.module_list.{number}"
                modules |= {
                    spatial.name: f"{place}.0.0",
                    f"{spatial.name}/norm": f"{place}.0.1",
                    last.name: f"{place}.1",
                }
        return modules

    def array(self, array: np.ndarray, variable: Variable, head: HeadPlan) -> np.ndarray:
        """Returns their array as our variable, float32, with its codes in our order."""
        array = np.array(self.base.view(array, variable), np.float32, order="C")
        if variable.path[0] in {layers[-1].name for layers in head.boxes}:
            codes = array.reshape(*array.shape[:-1], -1, 4)[..., self.code_order]
            array = np.ascontiguousarray(codes.reshape(array.shape))
        return array


TORCHVISION_BOXES = BoxLayout(
    detectors=("ssdlite320_v3_large", "ssdlite320_v3_large_full"),
    base=TORCHVISION,
    code_order=(1, 0, 3, 2),  # dx, dy, dw, dh there
)
