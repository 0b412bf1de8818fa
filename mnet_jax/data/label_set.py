"""The annotation that says which classes an image has, any number of them: how it is read, and its row of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mnet_jax.data.annotations import Annotation, Field, Parts, inside

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data.crop import Crop

_OBJECTS = "objects"  # what TFDS sets call what has boxes


@dataclasses.dataclass(frozen=True)
class LabelSet(Annotation):
    """The classes of an image, uint8 [C]: 1 for each that it has; all 0 of an image that has none.

    The set says how many classes there are. Of TFDS it is a sequence of classes, or that of the objects of a set with
    boxes: what is on an image at least once.

    In a source: "" uint8 [C], the same.
    """

    num_classes: int = 0
    feature: str = "labels"
    kind: ClassVar[str] = "Sequence of ClassLabel"

    def found_in(self, name: str, features: Mapping[str, object]) -> LabelSet:
        """Returns the annotation with its feature, `feature` or else the objects, and its number of classes."""
        del name
        known = [feature for feature in (self.feature, _OBJECTS) if self.fits(features.get(feature))]
        if not known:
            return self
        names = self.class_names(features[known[0]])
        return dataclasses.replace(self, feature=known[0], num_classes=len(names))

    def fits(self, feature: object) -> bool:
        """Returns whether it is a sequence of classes, or of objects with a class each."""
        return _class_label(feature) is not None

    def class_names(self, feature: object) -> tuple[str, ...]:
        """Returns the names of the classes."""
        return tuple(_class_label(feature).names)

    def record_features(self, feature: object) -> dict[str, object]:
        """Returns a list of numbers."""
        import tensorflow as tf

        return {f"{self.feature}/label" if inside(feature) else self.feature: tf.io.RaggedFeature(tf.int64)}

    def from_records(self, record: Mapping[str, tf.Tensor]) -> Parts:
        """Returns the rows, uint8 [n, C]; a class that there is not is an error."""
        import tensorflow as tf

        numbers = record[self.feature if self.feature in record else f"{self.feature}/label"]
        rows = tf.zeros([numbers.nrows(), self.num_classes], tf.int32)
        places = tf.stack([tf.cast(numbers.value_rowids(), tf.int64), numbers.values], 1)
        ones = tf.ones_like(numbers.values, tf.int32)
        return {"": tf.cast(tf.tensor_scatter_nd_max(rows, places, ones), tf.uint8)}

    def fields(self, image_size: tuple[int, int]) -> dict[str, Field]:
        """Returns one row; all 0 in padding."""
        return {"": Field((self.num_classes,), np.uint8)}

    def transform(self, parts: Parts, crop: Crop) -> Parts:
        """Returns the row: it is the same wherever the image is cut."""
        import tensorflow as tf

        return {"": tf.ensure_shape(parts[""], [self.num_classes])}


def _class_label(feature: object) -> Any:
    """Returns the ClassLabel of a TFDS sequence's elements, or of what they call "label"; None if there is none."""
    import tensorflow_datasets as tfds

    element = getattr(feature, "feature", None) if isinstance(feature, tfds.features.Sequence) else None
    label = inside(feature).get("label", element)
    return label if isinstance(label, tfds.features.ClassLabel) else None
