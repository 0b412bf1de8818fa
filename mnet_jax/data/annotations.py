"""Kinds of annotation: what an example holds beside its image, and how that follows the image's pixels.

An annotation of a task has a name, such as "boxes", and one or several parts: "" is the main one, "class" of "boxes" is
`boxes_class` in a batch (`batch.part_name`). Its parts in a *source* are as the files have them and independent of the
size of the picture; a source of your own yields the same parts for the same kind. `transform` makes a batch's parts of
them.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data.crop import Crop

Parts = dict[str, Any]  # tensors, or arrays, by the name of the part


@dataclasses.dataclass(frozen=True)
class Field:
    """One array of a batch, without its first axis."""

    shape: tuple[int, ...]
    dtype: type
    padding: int = 0  # the value of what is no example

    @property
    def device_dtype(self) -> np.dtype:
        """The type on a device: jax has no 64-bit integers there."""
        return np.dtype(np.int32 if self.dtype == np.int64 else self.dtype)


class Annotation(abc.ABC):
    """One kind of annotation: what it is in the files, in a batch, and under a crop."""

    feature: str  # what a TFDS set calls it
    kind: ClassVar[str]  # the class of that feature, for the message that it is missing
    moves: ClassVar[bool] = False  # whether it says where in the picture something is
    class_parts: ClassVar[tuple[str, ...]] = ()  # those of a batch whose values are numbers of classes; 0 in padding

    @abc.abstractmethod
    def fits(self, feature: object) -> bool:
        """Returns whether a TFDS feature (None: the set has none of this name) holds this annotation."""

    @abc.abstractmethod
    def class_names(self, feature: object) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of their numbers; () where the annotation knows none."""

    @abc.abstractmethod
    def record_features(self, feature: object) -> dict[str, object]:
        """Returns what `tf.io.parse_example` has to read, by the names in a TFDS record."""

    @abc.abstractmethod
    def from_records(self, record: Mapping[str, tf.Tensor]) -> Parts:
        """Returns a source's parts from n parsed records, [n, ...] each and ragged where lengths differ."""

    @abc.abstractmethod
    def fields(self, image_size: tuple[int, int]) -> dict[str, Field]:
        """Returns the batch's parts for images of (height, width)."""

    @abc.abstractmethod
    def transform(self, parts: Parts, crop: Crop) -> Parts:
        """Returns the batch's parts of one example from the source's, moved with its pixels."""

    def found_in(self, name: str, features: Mapping[str, object]) -> Annotation:
        """Returns the annotation as a TFDS set, by its name and features, has it; itself, unless a kind knows more."""
        del name, features
        return self

    def in_evaluation(self) -> Annotation:
        """Returns the annotation as batches of the evaluation have it: itself, unless a kind has more parts there."""
        return self

    def values(self, part: str, found: np.ndarray) -> np.ndarray:
        """Returns what `Dataset.values` says of an encoded part, bytes [N]; itself, unless a kind reads it."""
        del part
        return found

    def draw(self, image: np.ndarray, parts: Parts, class_names: tuple[str, ...]) -> np.ndarray:
        """Returns a copy of a batch's image uint8 [H, W, 3] with the batch's parts drawn into it."""
        del parts, class_names
        return image.copy()


@dataclasses.dataclass(frozen=True)
class Label(Annotation):
    """One class an image, int32 [].

    In a source: int64 [].
    """

    feature: str = "label"
    kind: ClassVar[str] = "ClassLabel"
    class_parts: ClassVar[tuple[str, ...]] = ("",)

    def fits(self, feature: object) -> bool:
        """Returns whether it is a class."""
        import tensorflow_datasets as tfds

        return isinstance(feature, tfds.features.ClassLabel)

    def class_names(self, feature: Any) -> tuple[str, ...]:
        """Returns the feature's names."""
        return tuple(feature.names)

    def record_features(self, feature: object) -> dict[str, object]:
        """Returns one number."""
        import tensorflow as tf

        return {self.feature: tf.io.FixedLenFeature([], tf.int64)}

    def from_records(self, record: Mapping[str, tf.Tensor]) -> Parts:
        """Returns the classes, int64 [n]."""
        return {"": record[self.feature]}

    def fields(self, image_size: tuple[int, int]) -> dict[str, Field]:
        """Returns one int32; 0 in padding."""
        return {"": Field((), np.int32)}

    def transform(self, parts: Parts, crop: Crop) -> Parts:
        """Returns the class: it is the same wherever the image is cut."""
        import tensorflow as tf

        return {"": tf.cast(parts[""], tf.int32)}


@dataclasses.dataclass(frozen=True)
class Boxes(Annotation):
    """Objects, each with its box and class, padded to `most` of them.

    In a batch, of which the first axis of each part counts the objects:

        ""      float32 [most, 4]: y1, x1, y2, x2 in pixels of the network's input, y1 < y2, x1 < x2; 0 in padding. It
                is the order in which arrays are indexed, of TFDS and of TFLite; torchvision has x1, y1, x2, y2
        class   int32 [most]: from 0, without a background; 0 in padding
        mask    bool [most]: which are objects; these come first
        ignore  bool [most]: neither to be found nor wrong if found: COCO's crowds, VOC's difficult ones
        area    float32 [most]: COCO's area of the object (not of its box) in pixels of the picture; where the set has
                none, that of the box

    An object stays if its centre is inside what is seen of the picture, strictly, as in the crops of SSD; its box is
    cut off there. Boxes without a height or width are dropped, and so are those that are, once cut, at most
    `least_side` pixels of the input high or wide. Of more than `most` objects the largest stay, those to be ignored
    last; the order is that of the set.

    In a source: "" float32 [4 k], boxes as in a batch but as shares of the picture's sides (0 .. 1), one after the
    other; class int64 [k]; ignore int64 [k]; and area float32 [k], or no such part.
    """

    most: int = 100
    least_side: float = 0.0
    feature: str = "objects"
    kind: ClassVar[str] = "Sequence of bbox (BBoxFeature) and label (ClassLabel)"
    moves: ClassVar[bool] = True
    class_parts: ClassVar[tuple[str, ...]] = ("class",)

    def fits(self, feature: object) -> bool:
        """Returns whether it is a sequence with a box and a class each."""
        import tensorflow_datasets as tfds

        found = inside(feature)
        return isinstance(found.get("bbox"), tfds.features.BBoxFeature) and isinstance(
            found.get("label"), tfds.features.ClassLabel
        )

    def class_names(self, feature: object) -> tuple[str, ...]:
        """Returns the names of the objects' classes."""
        return tuple(inside(feature)["label"].names)

    def record_features(self, feature: object) -> dict[str, object]:
        """Returns boxes and classes, and of what says more about an object that which the set has."""
        import tensorflow as tf

        kinds = {
            "bbox": tf.float32,
            "label": tf.int64,
            "is_crowd": tf.int64,
            "is_difficult": tf.int64,
            "area": tf.int64,
        }
        found = inside(feature)
        if "area" in found and found["area"].np_dtype not in (np.int64, np.int32):
            kinds["area"] = tf.float32
        return {f"{self.feature}/{name}": tf.io.RaggedFeature(kind) for name, kind in kinds.items() if name in found}

    def from_records(self, record: Mapping[str, tf.Tensor]) -> Parts:
        """Returns ragged parts, the boxes [n, (4 k)] and the others [n, (k)]."""
        import tensorflow as tf

        def found(*names: str) -> tf.Tensor | None:
            return next(
                (record[f"{self.feature}/{name}"] for name in names if f"{self.feature}/{name}" in record), None
            )

        classes, ignored, area = found("label"), found("is_crowd", "is_difficult"), found("area")
        parts = {
            "": found("bbox"),
            "class": classes,
            "ignore": tf.zeros_like(classes) if ignored is None else ignored,
        }
        return parts if area is None else {**parts, "area": tf.cast(area, tf.float32)}

    def fields(self, image_size: tuple[int, int]) -> dict[str, Field]:
        """Returns the parts that the class describes; all of padding is 0."""
        return {
            "": Field((self.most, 4), np.float32),
            "class": Field((self.most,), np.int32),
            "mask": Field((self.most,), np.bool_),
            "ignore": Field((self.most,), np.bool_),
            "area": Field((self.most,), np.float32),
        }

    def transform(self, parts: Parts, crop: Crop) -> Parts:
        """Returns the objects that are still there, cut off at the edges of what is seen."""
        import tensorflow as tf

        twice = [0, 1, 0, 1]
        part, place = (tf.cast(box, tf.float32) for box in (crop.part, crop.place))
        sides = tf.gather(tf.cast(crop.picture_size, tf.float32), twice)
        whole = tf.reshape(parts[""], [-1, 4]) * sides  # in pixels of the picture
        scale = place[2:] / part[2:]
        boxes = (whole - tf.gather(part, twice)) * tf.gather(scale, twice) + tf.gather(place, twice)
        low = tf.maximum(place[:2], 0.0)
        high = tf.minimum(place[:2] + place[2:], tf.constant(crop.size, tf.float32))
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        boxes = tf.clip_by_value(boxes, tf.gather(low, twice), tf.gather(high, twice))
        lengths = boxes[:, 2:] - boxes[:, :2]
        kept = tf.reduce_all((centres > low) & (centres < high) & (lengths > self.least_side), -1)
        mirrored = tf.stack([boxes[:, 0], crop.size[1] - boxes[:, 3], boxes[:, 2], crop.size[1] - boxes[:, 1]], -1)
        boxes = tf.where(crop.flipped, mirrored, boxes)

        ignored = parts["ignore"] > 0
        areas = parts["area"] if "area" in parts else tf.reduce_prod(whole[:, 2:] - whole[:, :2], -1)
        rank = tf.where(kept, tf.where(ignored, 0.0, tf.reduce_prod(lengths, -1)), -1.0)
        _, chosen = tf.math.top_k(rank, tf.minimum(self.most, tf.size(rank)))
        chosen = tf.sort(tf.boolean_mask(chosen, tf.gather(kept, chosen)))
        missing = self.most - tf.size(chosen)

        def slots(values: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(tf.gather(values, chosen), [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))
            return tf.ensure_shape(padded, [self.most, *values.shape[1:]])

        return {
            "": slots(boxes),
            "class": slots(tf.cast(parts["class"], tf.int32)),
            "mask": slots(tf.ones_like(ignored)),
            "ignore": slots(ignored),
            "area": slots(areas),
        }

    def draw(self, image: np.ndarray, parts: Parts, class_names: tuple[str, ...]) -> np.ndarray:
        """Returns the image with a frame around each object, in the colour of its class or, if it is ignored, white."""
        image = image.copy()
        height, width = image.shape[:2]
        for box, number, ignored in zip(parts[""], parts["class"], parts["ignore"], strict=True):
            if box[2] > box[0]:  # no padding
                frame = (255, 255, 255) if ignored else colour(number + 1)  # 0 is black
                y1, x1, y2, x2 = np.clip(np.round(box).astype(int) - [0, 0, 1, 1], 0, [height - 1, width - 1] * 2)
                image[[y1, y2], x1 : x2 + 1] = image[y1 : y2 + 1, [x1, x2]] = frame
        return image


def inside(feature: object) -> dict[str, Any]:
    """Returns the features of one element of a TFDS sequence; {} if it is none."""
    import tensorflow_datasets as tfds

    inner = getattr(feature, "feature", None) if isinstance(feature, tfds.features.Sequence) else None
    return dict(inner.items()) if isinstance(inner, tfds.features.FeaturesDict) else {}


def colour(number: int) -> tuple[int, int, int]:
    """Returns the colour of a class as VOC's pictures have it: the bits of its number, spread over the channels."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (int(number) >> bit & 1) << (7 - bit // 3)
    return tuple(channels)
