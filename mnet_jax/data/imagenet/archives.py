"""The two archives of image-net.org: a tar of 1,000 tars, one a class, and a flat one of the validation images."""

import hashlib
import os
from collections.abc import Callable, Iterator

from mnet_jax.data.imagenet import facts, strands
from mnet_jax.data.imagenet.tar import Bytes, Region
from mnet_jax.data.tensorflow_setup import tf


def are_there(root: str) -> bool:
    """Returns whether a folder has at least one of them."""
    return any(tf.io.gfile.exists(path) for path in _paths(root).values())


def check(root: str, *, md5: bool, start: Callable[[int], None], progress: Callable[[int], None]) -> None:
    """Does nothing if the archives in a folder, where there are any, are those of image-net.org.

    Args:
      root: the folder.
      md5: whether all bytes are read, and not only the sizes.
      start: is told how many bytes that will be.
      progress: is told how many more were read.

    Raises:
      ValueError: that says what was found and what is expected.
    """
    if not are_there(root):
        return
    files = {split: Bytes(path) for split, path in _paths(root).items() if _there(split, path)}
    for split, file in files.items():
        archive = facts.ARCHIVES[split]
        if file.size != archive.size:
            raise ValueError(
                f"{file.path} has {file.size:,} bytes, {archive.expected()}: download it again (--any_size takes "
                "another archive of the same structure, such as a part of it)"
            )
    if md5:
        start(sum(file.size for file in files.values()))
        for split, file in files.items():
            found = _md5(file, progress)
            if found != facts.ARCHIVES[split].md5:
                raise ValueError(f"{file.path} has MD5 {found}, {facts.ARCHIVES[split].expected()}: download it again")


def open_strands(root: str) -> dict[str, list[strands.Strand]]:
    """Returns the images of both archives by split, for training a strand a class.

    Raises:
      ValueError: if one is missing, or holds something else.
    """
    files = {split: Bytes(path) for split, path in _paths(root).items() if _there(split, path)}
    train = []
    for member in Region(files["train"]).members():
        wnid = os.path.basename(member.name).removesuffix(".tar")
        facts.label(wnid, files["train"].path)
        region = Region(files["train"], member.start, member.size)
        train.append(strands.Archive(region, lambda _, wnid=wnid: wnid))
    return {"train": train, "validation": [strands.Archive(Region(files["validation"]), _validation_class)]}


def _paths(root: str) -> dict[str, str]:
    return {split: os.path.join(root, archive.file) for split, archive in facts.ARCHIVES.items()}


def _there(split: str, path: str) -> bool:
    """Returns True. Raises ValueError if an archive is not there."""
    if not tf.io.gfile.exists(path):
        raise ValueError(
            f"{path} is missing: {facts.ARCHIVES[split].expected()}; https://image-net.org/download-images has it "
            "after registration"
        )
    return True


def _validation_class(name: str) -> str:
    wnid = facts.wnid_of(name)
    if wnid is None:
        file = facts.ARCHIVES["validation"].file
        raise ValueError(f"{file} has {name}: ILSVRC2012_val_00000001.JPEG and so on expected")
    return wnid


def _md5(file: Bytes, progress: Callable[[int], None]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in _parts(file):
        digest.update(part)
        progress(len(part))
    return digest.hexdigest()


def _parts(file: Bytes) -> Iterator[bytes]:
    at = 0
    while part := file.read(at, 16 << 20):
        yield part
        at += len(part)
