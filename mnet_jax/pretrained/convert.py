"""Arrays of a published file -> variables of our model: a bijection, or an error that lists what does not fit.

Which architecture a file holds is read off the names and shapes of its arrays, and checked where the caller knows.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from mnet_jax import errors
from mnet_jax.models import plans
from mnet_jax.models.plans import Variable, with_classifier
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.layouts import Layout

Arrays = Mapping[str, np.ndarray]

# Widths to try: those that somebody published, then all others that people type.
_PUBLISHED = (1.0, 0.75, 0.5, 0.35, 0.25, 1.25, 1.3, 1.4)
WIDTHS = tuple(dict.fromkeys([*_PUBLISHED, *(k / 20 for k in range(1, 41))]))
_TOP = ("head", "classifier")
_SHOWN = 3  # differences of a kind in an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """What a file holds, as our model has it."""

    model: str
    width: float
    num_classes: int  # 0: the file has no classifier
    variables: dict[str, dict]  # {"params", "batch_stats"} of NumPy float32 arrays


@dataclasses.dataclass(frozen=True)
class Differences:
    """What is in a file and not in the network, and the other way round."""

    missing: list[str]
    left_over: list[str]
    shapes: list[str]

    def __len__(self) -> int:
        return len(self.missing) + len(self.left_over) + len(self.shapes)

    def __str__(self) -> str:
        kinds = (("missing in it", self.missing), ("left over", self.left_over), ("of another shape", self.shapes))
        return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)


def convert(
    arrays: Arrays,
    layout: Layout,
    *,
    origin: str,
    model: str | None = None,
    width: float | None = None,
    log: Callable[[str], None],
) -> Converted:
    """Returns a file's arrays as variables.

    Args:
      arrays: all that the file holds, under the library's names.
      layout: the library's.
      origin: what to call the file in messages.
      model: the architecture that it must be; None: whichever fits.
      width: the same of the width multiplier.
      log: is told of everything that was left out.

    Raises:
      ValueError: if the arrays are not exactly those of the architecture; lists what differs.
    """
    plan = _find_plan(arrays, layout, origin, model, width)
    arrays = _fit_top(arrays, layout, plan, origin, log)
    absent = _absent_top(arrays, layout, plan)
    if "classifier" not in absent:
        plan = with_classifier(plan, _num_classes(arrays, layout, plan))
    different = _compare(arrays, layout, plan, absent)
    if len(different):
        found = None if model is width is None else _search(arrays, layout, None, None)
        hint = f". It fits {found.name} x{found.width:g}" if found else ""
        raise ValueError(f"{origin} does not fit {plan.name} x{plan.width:g}: {different}{hint}")
    present = ((variable, name) for variable, name in layout.names(plan) if variable.path[0] not in absent)
    return Converted(
        model=plan.name,
        width=plan.width,
        num_classes=0 if "classifier" in absent else plan.num_classes,
        variables=as_tree((variable, layout.view(arrays[name], variable)) for variable, name in present),
    )


def as_tree(arrays: Iterable[tuple[Variable, np.ndarray]]) -> dict[str, dict]:
    """Returns {"params", "batch_stats"} of variables' arrays, float32, by their scopes."""
    variables: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for variable, array in arrays:
        scope = variables[variable.collection]
        for part in variable.path[:-1]:
            scope = scope.setdefault(part, {})
        scope[variable.path[-1]] = np.array(array, np.float32, order="C")
    return variables


# --- Which architecture it is ---


def _plans(layout: Layout, model: str | None, width: float | None) -> Iterator[plans.ModelPlan]:
    for name in layout.models if model is None else (model,):
        for multiplier in WIDTHS if width is None else (width,):
            yield resolve(SPECS[name], num_classes=1000, width=multiplier, width_rule=layout.width_rule)


def _find_plan(arrays: Arrays, layout: Layout, origin: str, model: str | None, width: float | None) -> plans.ModelPlan:
    """Returns the plan to compare the file with: the one that fits, or the one that it should have been."""
    if model is not None:
        errors.check_choice(f"architecture of {layout.name}", model, layout.models)
    found = _search(arrays, layout, model, width)
    if found is not None:
        return found
    if model is None and width is not None and (fitting := _search(arrays, layout, None, None)) is not None:
        model = fitting.name
    if model is not None:
        return next(_plans(layout, model, width))
    nearest = min(
        (next(_plans(layout, name, width)) for name in layout.models),
        key=lambda plan: len(_compare(arrays, layout, plan, _TOP)),
    )
    different = _compare(arrays, layout, nearest, _TOP)
    raise ValueError(
        f"{origin} holds no architecture of {', '.join(layout.models)}; "
        f"compared with the nearest, {nearest.name} x{nearest.width:g}: {different}"
    )


def _search(arrays: Arrays, layout: Layout, model: str | None, width: float | None) -> plans.ModelPlan | None:
    """Returns the plan whose arrays are all there with their shapes, but for those of head and classifier."""
    fitting = {}
    for plan in _plans(layout, model, width):
        if plan.name not in fitting and all(
            theirs in arrays and layout.view(arrays[theirs], variable).shape == variable.shape
            for variable, theirs in layout.names(plan)
            if variable.path[0] not in _TOP
        ):
            fitting[plan.name] = plan
    # more than one fits where one architecture is a part of another
    return min(fitting.values(), key=lambda plan: len(_left_over(arrays, layout, plan)), default=None)


# --- The top: heads and classifiers differ between files of one architecture ---


def _fit_top(arrays: Arrays, layout: Layout, plan: plans.ModelPlan, origin: str, log: Callable[[str], None]) -> Arrays:
    """Returns the arrays with somebody's own classifier under its name; without one that our model cannot have.

    Whoever fine-tunes replaces the last layer, and may call it anything: one dense layer of the right input is the
    classifier. Several, after the backbone, are nothing that this architecture has: they are left out.
    """
    modules = layout.modules(plan)
    kernel, bias = (modules["classifier"] + layout.separator + layout.leaves[leaf] for leaf in ("kernel", "bias"))
    rest = _left_over(arrays, layout, plan)
    tops: dict[str, dict[str, np.ndarray]] = {}
    for name in rest:
        module, _, leaf = name.rpartition(layout.separator)
        tops.setdefault(module, {})[leaf] = arrays[name]
    dense = all(set(leaves) <= {layout.leaves["kernel"], "bias"} and _rank(leaves) == 2 for leaves in tops.values())
    if kernel in arrays or not tops or not dense:
        return arrays
    kept = {name: array for name, array in arrays.items() if name not in rest}
    if len(tops) == 1:
        ((module, leaves),) = tops.items()
        weight = leaves[layout.leaves["kernel"]].transpose(layout.dense_axes)
        if (
            weight.shape[0] == plan.classifier.in_features
            and "bias" in leaves
            and not _lacks_head(arrays, layout, plan)
        ):
            return kept | {kernel: leaves[layout.leaves["kernel"]], bias: leaves["bias"]}
    shapes = ", ".join(f"{name} {next(iter(leaves.values())).shape}" for name, leaves in tops.items())
    log(f"Left out of {origin}: the layers on top of {plan.name}, which this architecture does not have ({shapes})")
    return kept


def _rank(leaves: Mapping[str, np.ndarray]) -> int:
    return max(array.ndim for array in leaves.values())


def _lacks_head(arrays: Arrays, layout: Layout, plan: plans.ModelPlan) -> bool:
    names = [theirs for variable, theirs in layout.names(plan) if variable.path[0] == "head"]
    return bool(names) and not any(name in arrays for name in names)


def _absent_top(arrays: Arrays, layout: Layout, plan: plans.ModelPlan) -> tuple[str, ...]:
    """Returns which of head and classifier the file lacks as a whole: "no top" files do."""
    if any(theirs in arrays for variable, theirs in layout.names(plan) if variable.path[0] == "classifier"):
        return ()
    return _TOP if _lacks_head(arrays, layout, plan) else ("classifier",)


def _num_classes(arrays: Arrays, layout: Layout, plan: plans.ModelPlan) -> int:
    for variable, theirs in layout.names(plan):
        if variable.path == ("classifier", "kernel") and theirs in arrays:
            return layout.view(arrays[theirs], variable).shape[-1]
    return plan.num_classes


# --- Comparing ---


def _left_over(arrays: Arrays, layout: Layout, plan: plans.ModelPlan) -> list[str]:
    expected = {theirs for _, theirs in layout.names(plan)}
    return [name for name in arrays if name not in expected]


def differences(arrays: Arrays, expected: Iterable[tuple[Variable, str]], layout: Layout) -> Differences:
    """Returns what differs between a file's arrays and variables that are `expected` under the library's names."""
    missing, shapes, known = [], [], set()
    for variable, theirs in expected:
        known.add(theirs)
        if theirs not in arrays:
            missing.append(theirs)
        elif (there := layout.view(arrays[theirs], variable).shape) != variable.shape:
            shapes.append(f"{theirs} {there}, not {variable.shape}")
    return Differences(missing, [name for name in arrays if name not in known], shapes)


def _compare(arrays: Arrays, layout: Layout, plan: plans.ModelPlan, absent: tuple[str, ...]) -> Differences:
    expected = [(variable, theirs) for variable, theirs in layout.names(plan) if variable.path[0] not in absent]
    return dataclasses.replace(differences(arrays, expected, layout), left_over=_left_over(arrays, layout, plan))


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
