"""The annotation that says the class of every pixel: how a map is read, moves with the pixels, and is padded."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mnet_jax.data.annotations import Annotation, Field, Parts, colour
from mnet_jax.data.masks import sets

if TYPE_CHECKING:
    import tensorflow as tf

    from mnet_jax.data.crop import Crop

VOID = 255  # the class of a pixel of which nobody says anything


@dataclasses.dataclass(frozen=True)
class PixelMap(Annotation):
    """The class of every pixel, uint8 [H, W]; `ignore` where it is void: there, and in padding, nothing is learned.

    Resized to the nearest on the very grid on which the pixels are resampled, so its edges stay where theirs are. In
    evaluation, where `largest` is known, a batch has besides

        whole   uint8 [*largest]: the map at the size of the picture, in the upper left corner, else `ignore`

    In a source: "" string [], an encoded greyscale image of the picture's height and width whose values are the
    classes, or become them by `lookup`, or, where `read` is known, the name by which it gives such an image; or "path"
    string [], the path of such a file.
    """

    ignore: int = VOID
    names: tuple[str, ...] = ()  # of the classes, where the set does not know them
    feature: str = "segmentation_mask"
    lookup: tuple[int, ...] = ()  # the class of each value from 0 on; values beyond are `ignore`. (): as they are
    largest: tuple[int, int] | None = None  # height and width of the largest picture to be evaluated
    whole: bool = False  # whether a batch has the part "whole"
    # The encoded image of a name, for a source that makes its maps when they are needed; on many threads.
    read: Callable[[bytes], bytes] | None = dataclasses.field(default=None, compare=False, repr=False)
    kind: ClassVar[str] = "Image of one channel"
    moves: ClassVar[bool] = True

    def found_in(self, name: str, features: Mapping[str, object]) -> PixelMap:
        """Returns the map as a TFDS set has it: its feature's name, and the classes that are published for it."""
        facts = sets.KNOWN.get(name.split("/")[0].split(":")[0])
        if facts and facts.feature in features and not self.lookup:
            return dataclasses.replace(
                self, feature=facts.feature, lookup=facts.lookup, names=self.names or facts.names
            )
        fitting = [name for name, feature in features.items() if self.fits(feature)]
        if self.feature not in features and len(fitting) == 1:
            return dataclasses.replace(self, feature=fitting[0])
        return self

    def in_evaluation(self) -> PixelMap:
        """Returns the map with the part "whole", if the largest picture is known."""
        return dataclasses.replace(self, whole=self.largest is not None)

    def fits(self, feature: object) -> bool:
        """Returns whether it is an image of one channel of bytes; where values become classes, any image."""
        import tensorflow_datasets as tfds

        one_channel = isinstance(feature, tfds.features.Image) and (feature.shape[-1] == 1 or bool(self.lookup))
        return one_channel and feature.dtype == np.uint8

    def class_names(self, feature: object) -> tuple[str, ...]:
        """Returns `names`, or those of a TFDS LabeledImage."""
        return self.names or tuple(getattr(feature, "names", None) or ())

    def record_features(self, feature: object) -> dict[str, object]:
        """Returns one encoded image."""
        import tensorflow as tf

        return {self.feature: tf.io.FixedLenFeature([], tf.string)}

    def from_records(self, record: Mapping[str, tf.Tensor]) -> Parts:
        """Returns the encoded maps, string [n]."""
        return {"": record[self.feature]}

    def fields(self, image_size: tuple[int, int]) -> dict[str, Field]:
        """Returns the map, and in evaluation the whole one."""
        fields = {"": Field(image_size, np.uint8, self.ignore)}
        return {**fields, "whole": Field(self.largest, np.uint8, self.ignore)} if self.whole else fields

    def transform(self, parts: Parts, crop: Crop) -> Parts:
        """Returns the part of the map that the image shows; void where that shows nothing."""
        import tensorflow as tf

        contents = parts[""] if "" in parts else tf.io.read_file(parts["path"])
        if self.read is not None:
            contents = tf.numpy_function(self._read, [contents], tf.string, stateful=False)
            contents = tf.ensure_shape(contents, [])
        values = tf.io.decode_png(contents, channels=1)[..., 0]
        tf.debugging.assert_equal(
            tf.shape(values), crop.picture_size, "a pixel map has another height and width than its picture"
        )
        if self.lookup:
            values = tf.gather(tf.constant(self._table()), tf.cast(values, tf.int32))
        picture = values
        # Pixel i of the output has its centre at (i + 0.5 - place) * part / place of the part: in whole numbers, exact.
        for axis in (0, 1):
            start, length = crop.part[axis], crop.part[axis + 2]
            placed, extent = crop.place[axis], crop.place[axis + 2]
            offset = tf.range(crop.size[axis]) - placed
            found = (2 * offset + 1) * length // (2 * extent)
            values = tf.gather(values, start + tf.clip_by_value(found, 0, length - 1), axis=axis)
            seen = tf.reshape((offset >= 0) & (offset < extent), [-1, 1] if axis == 0 else [1, -1])
            values = tf.where(seen, values, tf.constant(self.ignore, tf.uint8))
        values = tf.where(crop.flipped, values[:, ::-1], values)
        moved = {"": tf.ensure_shape(values, crop.size)}
        return {**moved, "whole": self._padded(picture)} if self.whole else moved

    def values(self, part: str, found: np.ndarray) -> np.ndarray:
        """Returns how many pixels of each map have each of the 256 values, int64 [N, 256]."""
        del part

        def count(one: bytes) -> np.ndarray:
            contents = one if self.read is None else self.read(one)
            return np.bincount(self._decoded(contents).reshape(-1), minlength=256)

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            counts = list(pool.map(count, found))
        return np.stack(counts) if counts else np.zeros((0, 256), np.int64)

    def draw(self, image: np.ndarray, parts: Parts, class_names: tuple[str, ...]) -> np.ndarray:
        """Returns the image half covered with the colours of the classes; void is white."""
        values = parts[""]
        colours = np.array([colour(number) for number in range(256)], np.float32)
        colours[self.ignore] = 255
        return ((image + colours[values]) / 2).astype(np.uint8)

    def _read(self, name: bytes) -> np.ndarray:
        """Returns the encoded image of a name; an object, because an array of bytes would end at a zero."""
        return np.array(self.read(name), object)

    def _table(self) -> np.ndarray:
        """Returns the class of each of the 256 values, uint8."""
        if not self.lookup:
            return np.arange(256, dtype=np.uint8)
        return np.array([*self.lookup, *[self.ignore] * (256 - len(self.lookup))], np.uint8)

    def _decoded(self, contents: Any) -> np.ndarray:
        """Returns the classes of one encoded map, uint8 [h, w]."""
        from PIL import Image

        with Image.open(io.BytesIO(contents)) as image:
            return self._table()[np.asarray(image if image.mode == "L" else image.convert("L"))]

    def _padded(self, values: tf.Tensor) -> tf.Tensor:
        """Returns a whole map, uint8 [*largest]; of a larger picture, which only another split may have, all void."""
        import tensorflow as tf

        missing = tf.constant(self.largest) - tf.shape(values)
        values = tf.cond(tf.reduce_all(missing >= 0), lambda: values, lambda: values[:0, :0])
        pads = tf.pad((tf.constant(self.largest) - tf.shape(values))[:, None], [[0, 0], [1, 0]])
        return tf.ensure_shape(tf.pad(values, pads, constant_values=self.ignore), self.largest)
