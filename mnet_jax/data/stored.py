"""What preparing a set counts and writes: one file of it after the other, each whole or not there."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable

from mnet_jax import files
from mnet_jax.data.shrink import in_order
from mnet_jax.data.tensorflow_setup import tf

Progress = Callable[[int], None]  # is told how many more images are done


@dataclasses.dataclass
class Tally:
    """What was done so far."""

    images: int = 0  # that the prepared set has
    kept: int = 0  # of those, as they were
    bytes_before: int = 0  # encoded images only
    bytes_after: int = 0
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # name of an image -> what is wrong with it

    def count(self, before: bytes, after: bytes) -> None:
        """Adds one image."""
        self.images += 1
        self.kept += before == after
        self.bytes_before += len(before)
        self.bytes_after += len(after)

    def add(self, other: "Tally") -> None:
        """Adds all of another."""
        for name in ("images", "kept", "bytes_before", "bytes_after"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.left_out |= other.left_out


def write_shard(
    path: str, split: str, examples: "Iterable[tf.train.Example]", shrink: Callable[[bytes], bytes], progress: Progress
) -> Tally:
    """Writes one file of a set: its examples with smaller images and everything else as it was."""
    tally, part = Tally(), path if "://" in path else path + ".part"  # an object in a bucket is whole or not there
    with tf.io.TFRecordWriter(part) as writer:
        for place, (example, small) in enumerate(in_order(lambda example: shrink(image(example)), examples)):
            if isinstance(small, ValueError):
                known = example.features.feature["file_name"].bytes_list.value
                name = known[0].decode(errors="replace") if known else f"example {place} of {os.path.basename(path)}"
                tally.left_out[f"{split}: {name}"] = str(small)
            else:
                tally.count(image(example), small)
                example.features.feature["image"].bytes_list.value[0] = small
                writer.write(example.SerializeToString(deterministic=True))
            progress(1)
    if part != path:
        tf.io.gfile.rename(part, path, overwrite=True)
    return tally


def image(example: "tf.train.Example") -> bytes:
    """Returns the encoded image of an example."""
    return example.features.feature["image"].bytes_list.value[0]


def read_bytes(path: str) -> bytes:
    """Returns what is in a file, local or in a bucket."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


def read_json(path: str) -> dict:
    """Returns the value in a JSON file."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: dict) -> None:
    """Writes a JSON file, whole."""
    files.write_whole(path, json.dumps(value, indent=2))


def remove_notes(part: str) -> None:
    """Removes the notes beside the files of a set that is whole."""
    for file in tf.io.gfile.listdir(part):
        if file.startswith("."):
            tf.io.gfile.remove(os.path.join(part, file))
