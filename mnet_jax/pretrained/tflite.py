"""TFLite files as a source of weights: V1 and V2 as classifiers, as TensorFlow's detectors, and as its DeepLab.

A file's norms are folded into kernels and biases; here they come back as norms that change nothing: scale 1, mean 0,
variance 1 - epsilon. The network computes what the file does, but nothing is known of the statistics it was trained
with: fine-tune it with `model.norm_frozen`.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from mnet_jax.models import plans
from mnet_jax.models.dilation import OUTPUT_STRIDES
from mnet_jax.models.heads.boxes import HeadPlan
from mnet_jax.models.heads.mask_tables import SEGMENTERS, find_mask_head, resolve_segmenter
from mnet_jax.models.heads.tables import DETECTORS, find_head, resolve_detector
from mnet_jax.models.plans import ConvPlan, ModelPlan
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec
from mnet_jax.pretrained.boxes import ConvertedDetector
from mnet_jax.pretrained.convert import WIDTHS, Converted
from mnet_jax.pretrained.folded import Folded, Network
from mnet_jax.pretrained.masks import ConvertedSegmenter

MODELS = ("v1", "v2")
_Placed = tuple[tuple[str, ...], ConvPlan]  # a layer and the scopes that it stands in


def convert_tflite(network: Network, *, origin: str, model: str | None, width: float | None) -> Converted:
    """Returns a file's layers as variables of a classifier, of a detector (it has branches) or of a segmenter.

    Args:
      network: what the file computes.
      origin: what to call it in messages.
      model: the architecture that it must be; None: whichever fits.
      width: the same of the width multiplier.

    Raises:
      ValueError: if it is none of these networks.
    """
    if model not in (None, *MODELS):
        raise ValueError(f"{origin}: TFLite files are read of {' and '.join(MODELS)}, not of {model}")
    widths = WIDTHS if width is None else (width,)
    models = MODELS if model is None else (model,)
    find = _find_segmenter if network.resized else _find_detector if network.branches else _find_classifier
    found = next(find(network, models, widths), None)
    if found is None:
        what = "detectors (SSD or SSDLite as TensorFlow has them)" if network.branches else "classifiers"
        what = "segmenters (DeepLab as TensorFlow has it for V2)" if network.resized else what
        raise ValueError(
            f"{origin} holds none of the {what} that are read from TFLite files: {', '.join(models)} at width "
            f"{', '.join(f'{width:g}' for width in widths[:8])}, ...; it has {len(network.chain)} layers one after "
            f"the other and {len(network.branches)} branches"
        )
    return found


def _find_classifier(network: Network, models: tuple[str, ...], widths: tuple[float, ...]) -> Iterator[Converted]:
    num_classes = network.chain[-1].kernel.shape[-1]
    for name in models:
        for width in widths:
            plan = resolve(find_spec(name), num_classes=num_classes, width=width)
            layers = running_layers(plan)
            if _fits(layers, network.chain):
                yield Converted(
                    model=name,
                    width=width,
                    num_classes=num_classes,
                    variables=_variables(layers, network.chain, plan.norm),
                )


def _find_detector(network: Network, models: tuple[str, ...], widths: tuple[float, ...]) -> Iterator[ConvertedDetector]:
    classes, boxes = ([b for b in network.branches if b.boxes == wanted] for wanted in (False, True))
    if len(classes) != len(boxes) or not boxes:
        return
    num_anchors = boxes[-1].layers[-1].kernel.shape[-1] // 4
    slots = classes[-1].layers[-1].kernel.shape[-1] // max(num_anchors, 1)
    for detector in DETECTORS.values():
        spec = find_head(detector.head)
        num_classes = slots - int(spec.background)
        if detector.model not in models or spec.scores != network.scores or num_classes < 1:
            continue
        for width in widths:
            detector = dataclasses.replace(detector, width=width)
            plan, head = resolve_detector(detector, num_classes)
            layers, folded = running_layers(plan), list(network.chain)
            layers += [((), layer) for extra in head.extras for layer in extra]
            if not _fits(layers, folded) or not _same_branches(layers, head, classes, boxes):
                continue
            for branches, theirs in ((head.classes, classes), (head.boxes, boxes)):
                layers += [((), layer) for branch in branches for layer in branch]
                folded += [layer for branch in theirs for layer in branch.layers]
            yield ConvertedDetector(
                model=detector.model,
                width=width,
                num_classes=num_classes,
                variables=_variables(layers, folded, plan.norm),
                detector=detector,
            )


def _find_segmenter(
    network: Network, models: tuple[str, ...], widths: tuple[float, ...]
) -> Iterator[ConvertedSegmenter]:
    """Finds DeepLab's; the pooled branch of its head stands before the other, as it does in the file."""
    num_classes = network.chain[-1].kernel.shape[-1]
    for segmenter in SEGMENTERS.values():
        if segmenter.model not in models or not find_mask_head(segmenter.head).align_corners:
            continue
        for width, output_stride in itertools.product(widths, OUTPUT_STRIDES):
            found = dataclasses.replace(segmenter, width=width, output_stride=output_stride, auxiliary=False)
            plan, head = resolve_segmenter(found, num_classes)
            layers = [*running_layers(plan), *(((), layer) for layer in head.layers)]
            if _fits(layers, network.chain):
                yield ConvertedSegmenter(
                    model=found.model,
                    width=width,
                    num_classes=num_classes,
                    variables=_variables(layers, network.chain, head.norm),
                    segmenter=found,
                )


def _same_branches(layers: list[_Placed], head: HeadPlan, classes: list, boxes: list) -> bool:
    """Whether the branches take the head's maps, in its order, and have its layers."""
    paths = ["/".join((*scope, layer.name)) for scope, layer in layers]
    ends = [_end(paths, tap.path) for tap in head.taps] + [paths.index(extra[-1].name) for extra in head.extras]
    for ours, theirs in ((head.classes, classes), (head.boxes, boxes)):
        theirs.sort(key=lambda branch: branch.after)
        if [branch.after for branch in theirs] != ends:
            return False
        if not all(
            _fits([((), layer) for layer in branch], their.layers) for branch, their in zip(ours, theirs, strict=True)
        ):
            return False
    return True


def _end(paths: list[str], tap: str) -> int:
    """Returns the number of the layer whose result a tap takes: of a block, the last one in it."""
    return max(index for index, path in enumerate(paths) if path == tap or path.startswith(f"{tap}/"))


def running_layers(plan: ModelPlan) -> list[_Placed]:
    """Returns the convolutions of a plan in the order in which they run, with the scopes that they stand in."""
    found: list[_Placed] = [((), plan.stem)]
    for block in plan.blocks:
        for layer in block.layers:
            if isinstance(layer, plans.SqueezeExcitePlan):
                found += [((block.name, layer.name), part) for part in (layer.reduce, layer.expand)]
            elif isinstance(layer, ConvPlan):
                found.append(((block.name,), layer))
    return found + [((), layer) for layer in (plan.last_conv, plan.head, plan.classifier) if layer is not None]


def _fits(layers: list[_Placed], folded: list[Folded] | tuple[Folded, ...]) -> bool:
    return len(layers) == len(folded) and all(
        ours.kernel_shape == theirs.kernel.shape
        and ours.depthwise == theirs.depthwise
        and (ours.stride, ours.dilation) == (theirs.stride, theirs.dilation)
        and theirs.activation in (None, ours.activation)
        for (_, ours), theirs in zip(layers, folded, strict=True)
    )


def _variables(layers: list[_Placed], folded: list[Folded] | tuple[Folded, ...], norm: plans.Norm) -> dict[str, dict]:
    """Returns {"params", "batch_stats"} of the layers, with norms that change nothing."""
    variables: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for (scope, layer), theirs in zip(layers, folded, strict=True):
        params, statistics = variables["params"], variables["batch_stats"]
        for name in (*scope, layer.name):
            params = params.setdefault(name, {})
        params[layer.kernel_name] = theirs.kernel
        if not layer.norm:
            params["bias"] = theirs.bias
            continue
        for name in (*scope, layer.name):
            statistics = statistics.setdefault(name, {})
        params["norm"] = {"scale": np.ones_like(theirs.bias), "bias": theirs.bias}
        statistics["norm"] = {
            "mean": np.zeros_like(theirs.bias),
            "var": np.full_like(theirs.bias, 1 - norm.epsilon),
        }
    return variables
