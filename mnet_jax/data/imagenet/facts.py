"""What is known of ImageNet (ILSVRC 2012) before a file is read: classes, labels, archives, how TFDS stores it."""

import dataclasses
import functools
import re
from typing import TYPE_CHECKING

from mnet_jax.data.imagenet_names import NAMES

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

VERSION = "5.1.0"  # of TFDS's imagenet2012
SHARDS = {"train": 1024, "validation": 64}  # files of a whole split, as TFDS has them
WNIDS = tuple(NAMES)  # the classes' WordNet numbers; the place of one is its label
_PLACES = {wnid: place for place, wnid in enumerate(WNIDS)}
# As the hub's copies name files, the class is added at the end: n01440764_18_n01440764.JPEG.
_STEM = re.compile(r"^(n\d{8}_\d+|ILSVRC2012_val_\d{8})(?:_n\d{8})?$")
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})")
_TRAIN = re.compile(r"^(n\d{8})_")


@dataclasses.dataclass(frozen=True)
class Archive:
    """One of the two archives of image-net.org."""

    file: str
    size: int  # bytes
    md5: str

    def expected(self) -> str:
        """Returns what there should be, for an error."""
        return f"{self.size:,} bytes with MD5 {self.md5} expected"


ARCHIVES = {
    "train": Archive("ILSVRC2012_img_train.tar", 147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"),
    "validation": Archive("ILSVRC2012_img_val.tar", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"),
}


def label(wnid: str, where: str) -> int:
    """Returns the number of a class. Raises ValueError that names `where`, if ImageNet has no such class."""
    if wnid not in _PLACES:
        raise ValueError(f"{where}: {wnid!r} is not one of ImageNet's 1,000 classes, such as {WNIDS[0]} (tench)")
    return _PLACES[wnid]


def is_wnid(name: str) -> bool:
    """Returns whether this names one of the 1,000 classes."""
    return name in _PLACES


def file_name(path: str) -> str:
    """Returns what ImageNet itself calls an image: the last part of its path, without what copies of the set add."""
    stem, dot, ending = path.rsplit("/", 1)[-1].rpartition(".")
    known = _STEM.match(stem if dot else ending)
    return f"{known[1]}.JPEG" if known else path.rsplit("/", 1)[-1]


def wnid_of(name: str) -> str | None:
    """Returns the class that ImageNet's own name of an image says, None where it says none."""
    if found := _TRAIN.match(name):
        return found[1]
    if found := _VALIDATION.match(name):
        number = int(found[1])
        known = validation_wnids()
        return known[number - 1] if 1 <= number <= len(known) else None
    return None


def is_validation_name(name: str) -> bool:
    """Returns whether a file is called as the images of the validation archive are."""
    return _VALIDATION.match(name) is not None


@functools.cache
def validation_wnids() -> tuple[str, ...]:
    """Returns the class of each of the 50,000 validation images, by the number in its name less one.

    The devkit's ground truth as TFDS ships it.
    """
    import tensorflow_datasets as tfds

    return tuple(tfds.core.tfds_path("datasets/imagenet2012/validation_labels.txt").read_text().split())


def features() -> "tfds.features.FeaturesDict":
    """Returns what an example of TFDS's imagenet2012 has."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(WNIDS)),
            "file_name": tfds.features.Text(),
        }
    )
