"""Files of segmenters -> trained models: torchvision's lraspp_ and deeplabv3_mobilenet_v3_large, and TFLite files."""

import dataclasses

from mnet_jax.models.heads.mask_tables import SEGMENTERS, SegmenterSpec, resolve_segmenter
from mnet_jax.pretrained import mask_layouts
from mnet_jax.pretrained.convert import Arrays, Converted, as_tree, differences
from mnet_jax.pretrained.layouts import TORCHVISION
from mnet_jax.pretrained.published import published
from mnet_jax.trained import Trained

# Pascal VOC's, in the order of its palette; the published segmenters have these.
VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedSegmenter(Converted):
    """What a file of a segmenter holds, as our model has it; `num_classes` is with the background."""

    segmenter: SegmenterSpec  # with the file's width, output stride and auxiliary head


def is_segmenter(arrays: Arrays) -> bool:
    """Returns whether these are torchvision's names of a segmenter with one of its MobileNets."""
    return "backbone.0.0.weight" in arrays and any(name.startswith("classifier.") for name in arrays)


def convert_segmenter(arrays: Arrays, *, origin: str, model: str | None, width: float | None) -> ConvertedSegmenter:
    """Returns the arrays of torchvision's lraspp_ or deeplabv3_mobilenet_v3_large, that with its auxiliary head or not.

    Args:
      arrays: all that the file holds.
      origin: what to call the file in messages.
      model: the architecture that it must be; None: whichever fits.
      width: the same of the width multiplier, whose only published value is 1.

    Raises:
      ValueError: if the arrays are not exactly those of one of the two; lists what differs.
    """
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    auxiliary = any(name.startswith("aux_classifier.") for name in arrays)
    problems = {}
    for name in mask_layouts.SEGMENTERS:
        known = SEGMENTERS[name]
        segmenter = dataclasses.replace(known, width=width or known.width, auxiliary=known.auxiliary and auxiliary)
        if model not in (None, segmenter.model):
            raise ValueError(f"{origin} is a segmenter on {segmenter.model}, not on {model}")
        plan, head = resolve_segmenter(segmenter, _num_classes(arrays, segmenter))
        expected = list(mask_layouts.names(plan, head))
        found = differences(arrays, expected, TORCHVISION)
        if not len(found):
            pairs = ((variable, TORCHVISION.view(arrays[theirs], variable)) for variable, theirs in expected)
            return ConvertedSegmenter(
                model=segmenter.model,
                width=segmenter.width,
                num_classes=head.num_classes,
                variables=as_tree(pairs),
                segmenter=segmenter,
            )
        problems[name] = found
    name = min(problems, key=lambda name: len(problems[name]))
    raise ValueError(f"{origin} does not fit {name}, the nearest segmenter: {problems[name]}")


def trained(
    converted: ConvertedSegmenter,
    *,
    path: str,
    labels: tuple[str, ...] | None = None,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    image_size: int | tuple[int, int] | None = None,
    norm_frozen: bool = False,
) -> Trained:
    """Returns the trained model of a segmenter's file.

    Args:
      converted: what the file holds.
      path: what to call it.
      labels: names of its classes, where the file has them; None: Pascal VOC's if there are 21, else their numbers.
      pixels: mean and deviation of pixels, where the file says so; None: the segmenter's.
      image_size: the same of the size.
      norm_frozen: whether the norms are folded, so that training must leave them as they are.
    """
    number = converted.num_classes
    if labels is None or len(set(labels)) != number:
        labels = VOC if number == len(VOC) else tuple(f"class {index}" for index in range(number))
    return published(
        converted,
        converted.segmenter.settings,
        labels,
        dataset="voc/2012" if labels == VOC else "unknown",
        path=path,
        pixels=pixels,
        image_size=image_size,
        norm_frozen=norm_frozen,
    )


def _num_classes(arrays: Arrays, segmenter: SegmenterSpec) -> int:
    """Returns the number of classes of the last layer; 1 if unknown."""
    plan, head = resolve_segmenter(segmenter, 1)
    bias = arrays.get(f"{mask_layouts.modules(plan, head)[head.classes.name]}.bias")
    return 1 if bias is None or bias.ndim != 1 else max(bias.shape[0], 1)
