"""Files of detectors -> trained models: torchvision's ssdlite320_mobilenet_v3_large, and what TFLite files hold."""

import dataclasses

from mnet_jax.models.heads.tables import DETECTORS, DetectorSpec, resolve_detector
from mnet_jax.pretrained.box_layouts import TORCHVISION_BOXES, BoxLayout
from mnet_jax.pretrained.convert import Arrays, Converted, as_tree, differences
from mnet_jax.pretrained.published import published
from mnet_jax.trained import Trained

# COCO's categories by their ids, 1 to 90; published detectors have a class for each id, also for those without a name.
_COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    *("surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana"),
    *("apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "", "dining table", "", "", "toilet", "", "tv", "laptop", "mouse", "remote"),
    *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "", "book", "clock"),
    *("vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
UNUSED = "unused"  # how the names of classes begin that stand for no object


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertedDetector(Converted):
    """What a file of a detector holds, as our model has it; `num_classes` is without the background."""

    detector: DetectorSpec  # with the file's width


def is_detector(arrays: Arrays) -> bool:
    """Returns whether these are torchvision's names of a detector with one of its MobileNets."""
    return "backbone.features.0.0.0.weight" in arrays and any(name.startswith("head.") for name in arrays)


def convert_detector(arrays: Arrays, *, origin: str, model: str | None, width: float | None) -> ConvertedDetector:
    """Returns the arrays of torchvision's ssdlite320_mobilenet_v3_large, with the halved tail or the full one.

    Args:
      arrays: all that the file holds.
      origin: what to call the file in messages.
      model: the architecture that it must be; None: whichever fits.
      width: the same of the width multiplier, whose only published value is 1.

    Raises:
      ValueError: if the arrays are not exactly those of one of the two; lists what differs.
    """
    layout = TORCHVISION_BOXES
    arrays = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    problems = {}
    for name in layout.detectors:
        detector = dataclasses.replace(DETECTORS[name], width=width or DETECTORS[name].width)
        if model not in (None, detector.model):
            continue
        plan, head = resolve_detector(detector, _num_classes(arrays, layout, detector))
        expected = list(layout.names(plan, head))
        found = differences(arrays, expected, layout.base)
        if not len(found):
            return ConvertedDetector(
                model=detector.model,
                width=detector.width,
                num_classes=head.num_classes,
                variables=as_tree(
                    (variable, layout.array(arrays[theirs], variable, head)) for variable, theirs in expected
                ),
                detector=detector,
            )
        problems[name] = found
    if not problems:
        models = " or ".join(DETECTORS[name].model for name in layout.detectors)
        raise ValueError(f"{origin} is a detector on {models}, not on {model}")
    name = min(problems, key=lambda name: len(problems[name]))
    raise ValueError(f"{origin} does not fit {name}, the nearest detector: {problems[name]}")


def trained(
    converted: ConvertedDetector,
    *,
    path: str,
    labels: tuple[str, ...] | None = None,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    image_size: int | tuple[int, int] | None = None,
    norm_frozen: bool = False,
) -> Trained:
    """Returns the trained model of a detector's file.

    Args:
      converted: what the file holds.
      path: what to call it.
      labels: names of its classes, where the file has them; None: COCO's if there are 90, else their numbers.
      pixels: mean and deviation of pixels, where the file says so; None: the detector's.
      image_size: the same of the size.
      norm_frozen: whether the norms are folded, so that training must leave them as they are.
    """
    number = converted.num_classes
    coco = labels is None and number == len(_COCO)
    if coco or labels is None or len(labels) != number:
        labels = _COCO if coco else tuple(f"class {index}" for index in range(number))
    return published(
        converted,
        converted.detector.settings,
        _named(labels),
        dataset="coco/2017" if number == len(_COCO) else "unknown",
        path=path,
        pixels=pixels,
        image_size=image_size,
        norm_frozen=norm_frozen,
    )


def _named(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns names that differ: of a class without a name ("", "???" or "n/a") its number from 1, COCO's id."""
    blank = ("", "???", "n/a")
    return tuple(f"{UNUSED} {index}" if name.lower() in blank else name for index, name in enumerate(labels, 1))


def _num_classes(arrays: Arrays, layout: BoxLayout, detector: DetectorSpec) -> int:
    """Returns the number of classes that the last layer of the first map has, without the background; 1 if unknown."""
    plan, head = resolve_detector(detector, 1)
    name = head.classes[0][-1].name
    theirs = layout.modules(plan, head)[name] + layout.base.separator + layout.base.leaves["bias"]
    if theirs not in arrays or arrays[theirs].ndim != 1:
        return 1
    return max(arrays[theirs].shape[0] // len(head.anchors[0]) - int(head.background), 1)
