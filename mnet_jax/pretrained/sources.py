"""The catalogue of published weights: for each what it is, where it lies, how its images are prepared, what it claims.

Rows are data; sizes and parameter counts are not here, because they follow from the plans. The preprocessing of timm's
weights is that of its default_cfg (timm 1.0.31), torchvision's that of its weights' transforms (0.28), Keras' that of
applications/*.py (3.15); tests/scripts/check_catalogue.py compares those of timm with the installed library.
Accuracies are those at the image size given here; where they are published is said with them.
"""

import dataclasses
import math

from mnet_jax.data import catalog
from mnet_jax.errors import did_you_mean
from mnet_jax.errors import nearest as nearest_names
from mnet_jax.models.plans import BatchNorm
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.timm_rows import (
    TIMM_ARCHITECTURES,
    TIMM_ROWS,
    TIMM_SAME_PADDING,
    TIMM_TENSORFLOW_EPSILON,
)
from mnet_jax.trained import PublishedAccuracy

# Mean and deviation of pixels in 0 .. 255, by name.
STATISTICS: dict[str, catalog.Statistics] = {
    "imagenet": catalog.IMAGENET,
    "half": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # pixels become -1 .. 1
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # pixels become 0 .. 1
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Weights that somebody published, or a file laid out like them."""

    name: str  # as `load_pretrained` takes it
    layout: str  # of `layouts.LAYOUTS`
    model: str | None  # None: read off the file
    width: float | None
    num_classes: int | None = 1000  # 0: no classifier
    padding: str
    norm_epsilon: float
    norm_decay: float | None  # None: the norm has no averages
    image_size: int = 224  # pixels of a side
    statistics: str  # of `STATISTICS`
    eval_crop: float = 0.875  # side of the centre crop over the short side
    interpolation: str = "bilinear"
    url: str | None = None  # None: on the hub, under its name
    checksum: str | None = None  # "sha256:" and the first digits, or "md5:" and all of them
    accuracy: PublishedAccuracy | None = None
    segmenter: str | None = None  # of `models.heads.mask_tables.SEGMENTERS`; classes are then with the background
    detector: str | None = None  # of `models.heads.tables.DETECTORS`; classes are then without the background

    @property
    def file(self) -> str:
        """Name of the file that holds it."""
        return "model.safetensors" if self.url is None else self.url.rpartition("/")[2]


# --- timm, on the Hugging Face hub ---

_TIMM_CSV = "timm, results-imagenet.csv"


def timm_crop(image_size: int, crop_pct: float) -> float:
    """Returns timm's crop_pct as our share of the short side, which it resizes to floor(size / crop_pct), whole pixels.

    Its 1.0 is still a centre square; ours is the whole image, squeezed. The number just below gives the square.
    """
    return min(image_size / math.floor(image_size / crop_pct), 0.9999)


def timm_source(name: str, architecture: str, **known: object) -> Source:
    """Returns a file of timm's `architecture`; `known` are fields of Source.

    Raises:
      ValueError: if our tables do not describe the architecture.
    """
    if architecture not in TIMM_ARCHITECTURES:
        hint = did_you_mean(architecture, TIMM_ARCHITECTURES)
        raise ValueError(f"{name} cannot be loaded: timm's {architecture!r} is no MobileNet of v1 to v5.{hint}")
    model, width = TIMM_ARCHITECTURES[architecture]
    norm = SPECS[model].norm
    batch_norm = isinstance(norm, BatchNorm)
    tensorflow_epsilon = architecture.startswith("tf_") or architecture in TIMM_TENSORFLOW_EPSILON
    fields = {
        "padding": timm_padding(architecture, name),
        "norm_epsilon": (1e-3 if tensorflow_epsilon else 1e-5) if batch_norm else norm.epsilon,
        "norm_decay": 0.9 if batch_norm else None,  # PyTorch's momentum of .1
    }
    return Source(name=name, layout="timm", model=model, width=width, **fields | known)


def timm_padding(architecture: str, name: str) -> str:
    """Returns the padding of a network of timm, by its architecture and the name of its weights, tag included."""
    beginnings, ends = TIMM_SAME_PADDING["beginnings"], TIMM_SAME_PADDING["ends"]
    same = architecture.startswith(beginnings) or architecture.endswith(ends) or name.endswith(ends)
    return "same" if same else "symmetric"


def _timm() -> list[Source]:
    return [
        timm_source(
            f"timm/{name}",
            name.partition(".")[0],
            num_classes=num_classes,
            image_size=size,
            statistics=statistics,
            eval_crop=timm_crop(size, crop),
            interpolation=interpolation,
            accuracy=None
            if top1 is None
            else PublishedAccuracy(top1=top1, top5=top5, image_size=size, source=_TIMM_CSV),
        )
        for name, size, crop, statistics, interpolation, num_classes, top1, top5 in TIMM_ROWS
    ]


# --- torchvision ---

# Name, model, file (its end is the start of the SHA-256), short side before the crop of 224, top-1, top-5.
_TORCHVISION_ROWS = (
    ("mobilenet_v2.IMAGENET1K_V2", "v2", "mobilenet_v2-7ebf99e0.pth", 232, 72.154, 90.822),
    ("mobilenet_v2.IMAGENET1K_V1", "v2", "mobilenet_v2-b0353104.pth", 256, 71.878, 90.286),
    ("mobilenet_v3_large.IMAGENET1K_V2", "v3_large", "mobilenet_v3_large-5c1a4163.pth", 232, 75.274, 92.566),
    ("mobilenet_v3_large.IMAGENET1K_V1", "v3_large", "mobilenet_v3_large-8738ca79.pth", 256, 74.042, 91.34),
    ("mobilenet_v3_small.IMAGENET1K_V1", "v3_small", "mobilenet_v3_small-047dcff4.pth", 256, 67.668, 87.402),
)
_TORCHVISION_URL = "https://download.pytorch.org/models/"


def torchvision_source(name: str, model: str, width: float | None, **known: object) -> Source:
    """Returns a file of torchvision: its V2 has PyTorch's norm, its V3 TensorFlow's epsilon and the paper's decay."""
    return Source(
        name=name,
        layout="torchvision",
        model=model,
        width=width,
        padding="symmetric",
        norm_epsilon=1e-5 if model == "v2" else 1e-3,
        norm_decay=0.9 if model == "v2" else 0.99,
        statistics="imagenet",
        **known,
    )


def _torchvision() -> list[Source]:
    return [
        torchvision_source(
            f"torchvision/{name}",
            model,
            1.0,
            eval_crop=224 / short_side,
            url=_TORCHVISION_URL + file,
            checksum="sha256:" + file.removesuffix(".pth").rpartition("-")[2],
            accuracy=PublishedAccuracy(top1=top1, top5=top5, image_size=224, source="torchvision, the weights' meta"),
        )
        for name, model, file, short_side, top1, top5 in _TORCHVISION_ROWS
    ]


def _torchvision_detector() -> Source:
    """Returns its SSDLite, with COCO's ids 1 to 90 as classes (21.3 AP on val2017, the weights' meta)."""
    return Source(
        name="torchvision/ssdlite320_mobilenet_v3_large.COCO_V1",
        detector="ssdlite320_v3_large",
        layout="torchvision",
        model="v3_large_halved",
        width=1.0,
        num_classes=90,
        padding="symmetric",
        norm_epsilon=1e-3,
        norm_decay=0.97,
        image_size=320,
        statistics="half",
        eval_crop=1.0,
        url=_TORCHVISION_URL + "ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
        checksum="sha256:a79551df90c79834bcd3bb3845ef9d966b5449a3a9b2833ae8404778ca5d65d2",
    )


def _torchvision_segmenters() -> list[Source]:
    """Returns those that it trained on COCO's images with Pascal VOC's classes (mean IoU 57.9 and 60.3, their meta)."""
    rows = (
        ("lraspp", "lraspp", "d234d4eae9d55d5f76de18b77cf0dc62c66fe5c5482758209d00f950c92bb280"),
        ("deeplabv3", "deeplab", "fc3c493d68e89cc31ef488c803d5d7dd2f3190fb570598faa49fef69be8e5e70"),
    )
    return [
        Source(
            name=f"torchvision/{name}_mobilenet_v3_large.COCO_WITH_VOC_LABELS_V1",
            segmenter=f"{segmenter}_v3_large",
            layout="torchvision",
            model="v3_large",
            width=1.0,
            num_classes=21,
            padding="symmetric",
            norm_epsilon=1e-3,
            norm_decay=0.99,
            image_size=520,
            statistics="imagenet",
            eval_crop=1.0,
            url=f"{_TORCHVISION_URL}{name}_mobilenet_v3_large-{digest[:8]}.pth",
            checksum=f"sha256:{digest}",
        )
        for name, segmenter, digest in rows
    ]


# --- Keras applications ---

_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"

# These are TensorFlow's checkpoints, for which slim's tables hold: width -> (top-1, top-5) at each size.
_V1_SIZES = (224, 192, 160, 128)
_V1_ROWS = {
    1.0: ((70.9, 89.9), (70.0, 89.2), (68.0, 87.7), (65.2, 85.8)),
    0.75: ((68.4, 88.2), (67.2, 87.3), (65.3, 86.0), (62.1, 83.9)),
    0.5: ((63.3, 84.9), (61.7, 83.6), (59.1, 81.9), (56.3, 79.4)),
    0.25: ((49.8, 74.2), (47.7, 72.3), (45.5, 70.3), (41.5, 66.3)),
}
_V2_SIZES = (224, 192, 160, 128, 96)
_V2_ROWS = {
    1.4: ((75.0, 92.5),),
    1.3: ((74.4, 92.1),),
    1.0: ((71.8, 91.0), (70.7, 90.1), (68.8, 89.0), (65.3, 86.9), (60.3, 83.2)),
    0.75: ((69.8, 89.6), (68.7, 88.9), (66.4, 87.3), (63.2, 85.3), (58.8, 81.6)),
    0.5: ((65.4, 86.4), (63.9, 85.4), (61.0, 83.2), (57.7, 80.8), (51.2, 75.8)),
    0.35: ((60.3, 82.9), (58.2, 81.2), (55.7, 79.1), (50.8, 75.0), (45.5, 70.4)),
}
_SLIM_V1 = "slim, mobilenet_v1.md, the same checkpoint"
_SLIM_V2 = "slim, mobilenet/README.md, the same checkpoint"
# Model, width, top-1, MD5 of the file. Keras' own docstring describes the networks of an early version of the paper.
_V3_ROWS = (
    ("v3_large", 1.0, 75.2, "59e551e166be033d707958cf9e29a6a7"),
    ("v3_large", 0.75, 73.3, "765b44a33ad4005b3ac83185abf1d0eb"),
    ("v3_large_minimalistic", 1.0, 72.3, "675e7b876c45c57e9e63e6d90a36599c"),
    ("v3_small", 1.0, 67.5, "8768d4c2e7dee89b9d02b2d03d65d862"),
    ("v3_small", 0.75, 65.4, "cb65d4e5be93758266aa0a7f2c6708b7"),
    ("v3_small_minimalistic", 1.0, 61.9, "99cd97fb2fcdad2bf028eb838de69e37"),
)


def keras_source(name: str, model: str, width: float | None, **known: object) -> Source:
    """Returns a file of Keras; its V3 scales pixels inside the model, to -1 .. 1 like the others."""
    return Source(
        name=name,
        layout="keras",
        model=model,
        width=width,
        padding="same",
        norm_epsilon=1e-3,
        norm_decay=0.99 if model == "v1" else 0.999,
        statistics="half",
        **known,
    )


def _keras() -> list[Source]:
    found = []
    for width, accuracies in _V1_ROWS.items():
        for size, (top1, top5) in zip(_V1_SIZES, accuracies, strict=True):
            text = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[width]
            found.append(
                keras_source(
                    f"keras/mobilenet_{width}_{size}",
                    "v1",
                    width,
                    image_size=size,
                    url=f"{_KERAS_URL}mobilenet/mobilenet_{text}_{size}_tf.h5",
                    accuracy=PublishedAccuracy(top1=top1, top5=top5, image_size=size, source=_SLIM_V1),
                )
            )
    for width, accuracies in _V2_ROWS.items():
        for size, (top1, top5) in zip(_V2_SIZES, accuracies, strict=False):
            file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{size}.h5"
            found.append(
                keras_source(
                    f"keras/mobilenet_v2_{width}_{size}",
                    "v2",
                    width,
                    image_size=size,
                    url=f"{_KERAS_URL}mobilenet_v2/{file}",
                    accuracy=PublishedAccuracy(top1=top1, top5=top5, image_size=size, source=_SLIM_V2),
                )
            )
    for model, width, top1, md5 in _V3_ROWS:
        kind = model.removeprefix("v3_")
        found.append(
            keras_source(
                f"keras/mobilenet_v3_{kind}_{width}_224",
                model,
                width,
                url=f"{_KERAS_URL}mobilenet_v3/weights_mobilenet_v3_{kind}_224_{width}_float.h5",
                checksum=f"md5:{md5}",
                accuracy=PublishedAccuracy(top1=top1, top5=None, image_size=224, source=_SLIM_V2),
            )
        )
    return found


CATALOGUE: dict[str, Source] = {
    source.name: source
    for source in (*_timm(), *_torchvision(), _torchvision_detector(), *_torchvision_segmenters(), *_keras())
}


def nearest(name: str) -> str:
    """Returns " Did you mean ...?" for the most similar name of the catalogue, or nothing."""
    bare = {known.partition("/")[2]: known for known in CATALOGUE}
    near = nearest_names(name, CATALOGUE) or [bare[match] for match in nearest_names(name.rpartition("/")[2], bare)]
    return f" Did you mean {near[0]!r}?" if near else ""


def look_up(name: str) -> Source | None:
    """Returns the entry of this name, or without its tag ("timm/mobilenetv2_100") the first; None if there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    return next((source for source in CATALOGUE.values() if source.name.startswith(f"{name}.")), None)


def by_file(file: str) -> Source | None:
    """Returns the entry that a file was downloaded from, by its name: the URL's, or timm's with .safetensors."""
    for source in CATALOGUE.values():
        stem = source.name.partition("/")[2]
        if file == source.file != "model.safetensors" or file in (f"{stem}.safetensors", f"{stem}.pth"):
            return source
    return None
