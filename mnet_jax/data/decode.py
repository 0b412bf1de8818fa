"""Host side: encoded bytes -> cropped, flipped, resized uint8, with the Crop that tells how. In tf.data, and eagerly.

Kinds of files are told apart by their bytes, not by their names: JPEG here, all others in `pictures`.

Most images of a large set are upright JPEGs. What to decode of them is planned for many at once (`Decoder.plan`, from
their headers), and each then takes a short way (`Decoder.pixels`); all others take the general way, one at a time. Both
give the same pixels.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from mnet_jax import config
from mnet_jax.data import croppers, faults, formats, jpeg, pictures
from mnet_jax.data.crop import Crop
from mnet_jax.data.croppers import Cropper, Cut
from mnet_jax.data.tensorflow_setup import graph_function, in_parallel, tf

Example = dict[str, Any]  # contents, index, key (in training), annotations {name: parts}; in a chunk [n, ...] each
_REDUCTIONS = (1, 2, 4, 8)  # the JPEG decoder shrinks by these while it decodes


# --- One image, the general way ---


def decode(
    contents: tf.Tensor, box: Callable[[tf.Tensor], tf.Tensor], reduce_to: tuple[int, int] | None = None
) -> tf.Tensor:
    """Returns the part of an encoded image (scalar string) that `box` chooses, upright, uint8 [h, w, 3].

    Args:
      contents: the file.
      box: from height and width, int32 [2], to (y, x, height, width), int32 [4].
      reduce_to: (height, width); a JPEG comes out 2, 4 or 8 times smaller where both sides stay at least so long.
    """
    place = tf.constant([0, 0, *(reduce_to or (0, 0))])
    return _cut_out(contents, lambda shape: Cut(box(shape), place), smaller=reduce_to is not None)[0]


def _cut_out(
    contents: tf.Tensor, cut: Callable[[tf.Tensor], Cut], *, smaller: bool
) -> tuple[tf.Tensor, Cut, tf.Tensor]:
    """Returns the pixels uint8 [h, w, 3] of a part of an image, the cut, and the picture's height and width.

    Of a JPEG nothing but that part is decoded, with the same pixels as if it were cut from the whole. Where it is
    decoded smaller (not below the size of its place), the part in the cut that comes back is what the pixels show: it
    begins and ends where the blocks do.
    """

    def from_jpeg() -> tuple[tf.Tensor, ...]:
        shape = jpeg.stored_shape(contents)
        orientation = jpeg.orientation(contents)
        upright = orientation == 1
        picture_size = tf.cond(upright, lambda: shape, lambda: jpeg.upright_shape(shape, orientation))
        part, place = cut(picture_size)
        ratio = _reduction(part[2:], place[2:]) if smaller else 1
        stored = tf.cond(upright, lambda: part, lambda: jpeg.stored_box(part, shape, orientation))
        image = _jpeg_part(contents, shape, stored, ratio)
        image = tf.cond(upright, lambda: image, lambda: jpeg.make_upright(image, orientation))
        if smaller:
            shown = stored // ratio * ratio
            part = tf.cond(upright, lambda: shown, lambda: jpeg.upright_box(shown, shape, orientation))
        return image, part, place, picture_size

    def from_other() -> tuple[tf.Tensor, ...]:
        image = pictures.decode(contents)
        picture_size = tf.shape(image)[:2]
        part, place = cut(picture_size)
        image = tf.slice(image, tf.concat([part[:2], [0]], 0), tf.concat([part[2:], [3]], 0))
        return image, part, place, picture_size

    is_jpeg = tf.strings.substr(contents, 0, len(jpeg.MAGIC)) == jpeg.MAGIC
    image, part, place, picture_size = tf.cond(is_jpeg, from_jpeg, from_other)
    image.set_shape([None, None, 3])
    return image, Cut(part, place), picture_size


def _reduction(size: tf.Tensor, reduce_to: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Returns the largest of `_REDUCTIONS` that leaves `size` (height, width) [..., 2] at least `reduce_to`, [...]."""
    fits = tf.reduce_min(size // tf.convert_to_tensor(reduce_to), -1, keepdims=True) >= _REDUCTIONS
    return tf.reduce_max(tf.where(fits, _REDUCTIONS, 1), -1)


def _jpeg_part(contents: tf.Tensor, shape: tf.Tensor, box: tf.Tensor, ratio: tf.Tensor | int) -> tf.Tensor:
    """Returns the box of a JPEG as stored, smaller by one of `_REDUCTIONS`."""
    size = tf.maximum(box[2:] // ratio, 1)
    window, begin = _with_margin(-(-shape // ratio), tf.concat([box[:2] // ratio, size], 0))

    def reduced() -> tf.Tensor:
        ways = [lambda r=r: _decode_window(contents, window, r) for r in _REDUCTIONS[1:]]
        return tf.switch_case(ratio // 4, ways)  # 2, 4, 8 -> 0, 1, 2

    def unreduced() -> tf.Tensor:
        return _decode_window(contents, window, 1)

    part = unreduced() if isinstance(ratio, int) else tf.cond(ratio == 1, unreduced, reduced)
    return tf.slice(part, tf.pad(begin, [[0, 1]]), tf.pad(size, [[0, 1]], constant_values=3))


def _with_margin(shape: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns boxes int32 [..., 4] with one pixel more on each side, and where in it they begin, [..., 2].

    Colour is stored at half resolution and interpolated from its neighbours.
    """
    start, size = box[..., :2], box[..., 2:]
    low = tf.maximum(start - 1, 0)
    return tf.concat([low, tf.minimum(start + size + 1, shape) - low], -1), start - low


def _decode_window(contents: tf.Tensor, window: tf.Tensor, ratio: int) -> tf.Tensor:
    # The accurate transform is libjpeg's (and Pillow's) default and no slower. A picture that breaks off keeps what
    # there is of it, grey below.
    return tf.io.decode_and_crop_jpeg(
        contents, window, channels=3, ratio=ratio, try_recover_truncated=True, dct_method="INTEGER_ACCURATE"
    )


def resize(
    image: tf.Tensor, image_size: tuple[int, int] | tf.Tensor, interpolation: str, antialias_above: float
) -> tf.Tensor:
    """Returns an image uint8 [h, w, 3] as uint8 [*image_size, 3]; unchanged if it has that size.

    It is filtered where it shrinks by more than `antialias_above`; see `Cropper.antialias_above`.
    """
    shape, target = tf.shape(image)[:2], tf.convert_to_tensor(image_size)
    image = tf.cond(
        tf.reduce_all(shape == target),
        lambda: image,
        lambda: tf.cond(
            _shrinks(shape, target, antialias_above),
            lambda: _resized(image, target, interpolation, antialias=True),
            lambda: _resized(image, target, interpolation, antialias=False),
        ),
    )
    return tf.ensure_shape(image, [*(image_size if isinstance(image_size, tuple) else (None, None)), 3])


def _shrinks(shape: tf.Tensor, image_size: tuple[int, int] | tf.Tensor, by_more_than: float) -> tf.Tensor:
    """Returns whether images of these shapes, int32 [..., 2], are resized to so much less, bool [...]."""
    limit = by_more_than * tf.cast(image_size, tf.float32)
    return tf.reduce_any(tf.cast(shape, tf.float32) > limit, -1)


def _resized(
    image: tf.Tensor, image_size: tuple[int, int] | tf.Tensor, interpolation: str, antialias: bool
) -> tf.Tensor:
    scaled = tf.image.resize(image, image_size, interpolation, antialias=antialias) + 0.5
    # Bilinear values stay within those of the image; cubic ones do not.
    return tf.cast(scaled, tf.uint8) if interpolation == "bilinear" else tf.saturate_cast(scaled, tf.uint8)


def _put(image: tf.Tensor, place: tf.Tensor, cropper: Cropper) -> tf.Tensor:
    """Returns the output, uint8 [*size, 3], with an image as large as its place in that place, the rest filled."""
    fill = tf.constant(cropper.fill, tf.uint8)
    image = image - fill if any(cropper.fill) else image  # modulo 256
    if cropper.margin is not None:
        pads = [[cropper.margin] * 2, [cropper.margin] * 2, [0, 0]]
        output = tf.slice(tf.pad(image, pads), tf.concat([cropper.margin - place[:2], [0]], 0), [*cropper.size, 3])
    else:
        low = tf.maximum(place[:2], 0)
        extent = tf.minimum(place[:2] + place[2:], cropper.size) - low
        pads = tf.pad(tf.stack([low, cropper.size - low - extent], 1), [[0, 1], [0, 0]])
        begin = tf.pad(tf.maximum(-place[:2], 0), [[0, 1]])
        output = tf.pad(tf.slice(image, begin, tf.pad(extent, [[0, 1]], constant_values=3)), pads)
    return output + fill if any(cropper.fill) else output


# --- Many images: planned together, decoded one by one ---


class DecodePlan(NamedTuple):
    """What can be said about n images before any is decoded, in operations that work on all of them together."""

    way: tf.Tensor  # int32 [n]: the general way, or for upright JPEGs decoded at their own size a short one
    window: tf.Tensor  # int32 [n, 4]: what to decode, with a margin
    begin: tf.Tensor  # int32 [n, 3]: where in it the crop begins
    extent: tf.Tensor  # int32 [n, 3]: the crop's size
    picture_size: tf.Tensor  # int32 [n, 2]: height and width; right where the way is a short one


_GENERAL, _SAMPLED, _FILTERED = 0, 1, 2  # ways; see `Cropper.antialias_above` for the last two


@dataclasses.dataclass(frozen=True)
class Decoder:
    """How the pixels of a run's examples come about: which part of a picture, mirrored or not, how resized."""

    cropper: Cropper
    interpolation: str
    flip: bool = False

    @classmethod
    def for_training(cls, data: ml_collections.ConfigDict) -> Decoder:
        """Returns the decoder of `config.data` for training: random crops and flips."""
        return cls(croppers.train_cropper(data, config.image_size(data)), data.interpolation, data.flip)

    @classmethod
    def for_evaluation(cls, data: ml_collections.ConfigDict) -> Decoder:
        """Returns the decoder of `config.data` for evaluation."""
        return cls(croppers.eval_cropper(data, config.image_size(data)), data.interpolation)

    def plan(self, examples: Example) -> Example:
        """Returns a chunk of examples, [n] each, with what can be said before they are decoded.

        That is `draws` float32 [n, ...], a function of (key, index), where anything is drawn; and `plan`, a
        `DecodePlan`, where the cropper works in bulk.
        """
        planned, draws = dict(examples), None
        if self.flip or self.cropper.num_draws:
            draws = croppers.uniform(examples["key"], examples["index"], 1 + self.cropper.num_draws)
            planned["draws"] = draws
        if self.cropper.in_bulk:
            found = jpeg.read_headers(examples["contents"])
            cut = self.cropper.cut(found.shape, None if draws is None else draws[:, 1:], None)
            planned["plan"] = self._planned(found, cut.part)
        return planned

    def _planned(self, found: jpeg.Headers, box: tf.Tensor) -> DecodePlan:
        window, begin = _with_margin(found.shape, box)
        zero = tf.zeros_like(box[:, :1])
        size = self.cropper.size
        way = tf.where(_shrinks(box[:, 2:], size, self.cropper.antialias_above), _FILTERED, _SAMPLED)
        short = found.known & ~found.has_exif
        if self.cropper.decode_smaller:
            short &= _reduction(box[:, 2:], size) == 1
        way = tf.where(short, way, _GENERAL)
        begin, extent = tf.concat([begin, zero], 1), tf.concat([box[:, 2:], zero + 3], 1)
        return DecodePlan(way, window, begin, extent, found.shape)

    def pixels(self, example: Example) -> tuple[tf.Tensor, Crop]:
        """Returns the pixels, uint8 [*size, 3], of one planned example, and how they came out of its picture."""
        size, plan = self.cropper.size, example.get("plan")
        if plan is None:
            image, cut, picture_size = self._general(example)
            place_size = cut.place[2:] if self.cropper.margin is None else size
            image = resize(image, place_size, self.interpolation, self.cropper.antialias_above)
            image = _put(image, cut.place, self.cropper)
        else:

            def general() -> tuple[tf.Tensor, ...]:
                image, cut, picture_size = self._general(example)
                image = resize(image, size, self.interpolation, self.cropper.antialias_above)
                return image, cut.part, picture_size

            def short(antialias: bool) -> tuple[tf.Tensor, ...]:
                image = _resized(_planned_part(example), size, self.interpolation, antialias)
                return image, _planned_box(plan), plan.picture_size

            ways = [general, lambda: short(False), lambda: short(True)]
            image, part, picture_size = tf.switch_case(plan.way, ways)
            cut = Cut(part, tf.constant([0, 0, *size]))
        flipped = example["draws"][0] < 0.5 if self.flip else tf.constant(False)
        if self.flip:
            unflipped = image
            image = tf.cond(flipped, lambda: tf.reverse(unflipped, [1]), lambda: unflipped)
        return tf.ensure_shape(image, [*size, 3]), Crop(cut.part, cut.place, flipped, picture_size, size)

    def part(self, example: Example) -> tf.Tensor:
        """Returns what `pixels` decodes before it is resized, uint8 [h, w, 3]: for measurements."""
        plan = example.get("plan")
        if plan is None:
            return self._general(example)[0]
        return tf.cond(plan.way == _GENERAL, lambda: self._general(example)[0], lambda: _planned_part(example))

    def one(self, contents: tf.Tensor, key: tf.Tensor | None = None, index: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the pixels uint8 [*size, 3] of one encoded image; key and index, int64 [], decide what is drawn."""
        given = {"contents": contents, "key": key, "index": index}
        chunk = {name: value[None] for name, value in given.items() if value is not None}
        planned = self.plan(chunk)
        return self.pixels(tf.nest.map_structure(lambda values: values[0], planned))[0]

    def _general(self, example: Example) -> tuple[tf.Tensor, Cut, tf.Tensor]:
        draws = example["draws"][1:] if "draws" in example else None
        annotations = None if self.cropper.in_bulk else example.get("annotations", {})
        return _cut_out(
            example["contents"],
            lambda shape: self.cropper.cut(shape, draws, annotations),
            smaller=self.cropper.decode_smaller,
        )


def _planned_part(example: Example) -> tf.Tensor:
    plan = example["plan"]
    part = tf.slice(_decode_window(example["contents"], plan.window, 1), plan.begin, plan.extent)
    return tf.ensure_shape(part, [None, None, 3])


def _planned_box(plan: DecodePlan) -> tf.Tensor:
    return tf.concat([plan.window[:2] + plan.begin[:2], plan.extent[:2]], 0)


def images(
    chunks: tf.data.Dataset,
    decoder: Decoder,
    finish: Callable[[Example, tf.Tensor, Crop], dict[str, tf.Tensor]],
    *,
    careful: bool = False,
) -> tf.data.Dataset:
    """Returns what `finish` makes of each example of the chunks, its pixels and its Crop; on all cores, in order.

    With `careful` each row has `unreadable`, as `faults.guarded` says.
    """
    make = faults.guarded if careful else in_parallel
    return make(planned(chunks, decoder), lambda example: finish(example, *decoder.pixels(example)))


def planned(chunks: tf.data.Dataset, decoder: Decoder) -> tf.data.Dataset:
    """Returns the examples of the chunks one at a time, each with its plan."""
    return chunks.map(graph_function(decoder.plan)).prefetch(1).unbatch()


# --- Single files ---


def load_image(source: str | os.PathLike | bytes) -> np.ndarray:
    """Returns one image, from a path (also gs://) or its bytes, as the pipeline sees it: upright uint8 [H, W, 3].

    Raises:
      ValueError: if there is none, or a folder's check would leave it out.
    """
    name, contents = "these bytes", source
    if not isinstance(source, bytes):
        name = os.fspath(source)
        contents = formats.read(name)
    if fault := formats.fault(contents):
        raise ValueError(f"cannot read {name}: {fault}; {formats.READABLE} expected")
    return decode(tf.constant(contents), croppers.whole).numpy()


def eval_crop(
    image: np.ndarray, image_size: tuple[int, int], eval_crop: float, interpolation: str
) -> tuple[np.ndarray, Crop]:
    """Returns what the evaluation makes of an image from `load_image`, uint8 [*image_size, 3], and its Crop."""
    box = croppers.center_box(tf.constant(image.shape[:2]), image_size, eval_crop).numpy()
    y, x, height, width = box
    part = tf.constant(image[y : y + height, x : x + width])
    pixels = resize(part, image_size, interpolation, antialias_above=1.0).numpy()
    place = np.array([0, 0, *image_size], np.int32)
    return pixels, Crop(box, place, np.array(False), np.array(image.shape[:2], np.int32), image_size)
