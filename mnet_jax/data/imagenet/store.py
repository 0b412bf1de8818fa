"""ImageNet in any of its forms becomes TFDS's imagenet2012: read once from start to end, nothing unpacked in between.

A file of the set takes the same share of each strand, so classes that lie one after the other in an archive are mixed
over all files, and its examples are put in an order that depends on the file's number only. Beside each finished file
a note says where in every strand it ended: there the next start goes on.
"""

import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Iterator

from mnet_jax.data import order
from mnet_jax.data.imagenet import facts
from mnet_jax.data.imagenet.forms import Form
from mnet_jax.data.imagenet.strands import Example, Strand
from mnet_jax.data.stored import Progress, Tally, read_json, remove_notes, write_json, write_shard
from mnet_jax.data.tensorflow_setup import tf


class ImageNet:
    """ImageNet in one of its forms, to be stored as a TFDS set."""

    def __init__(self, form: Form):
        self._form = form
        self.num_images = sum(form.num_images(split) for split in form.splits)

    def target(self, out: str) -> str:
        """Returns where the prepared set will be."""
        return os.path.join(out, "imagenet2012", facts.VERSION)

    def note(self) -> dict[str, object]:
        """Returns what tells this source from others, for a start that goes on."""
        return {"form": self._form.kind, "size": self._form.size()}

    def sample(self, count: int) -> list[bytes]:
        """Returns some images, from all over the training split."""
        strands = self._form.splits["train"]
        chosen = strands[:: max(1, len(strands) // count)][:count]
        found: list[bytes] = []
        for strand in chosen:
            for _, example in strand.examples(0):
                found.append(example.contents)
                if len(found) % max(1, count // len(chosen)) == 0:
                    break
        return found

    def write(self, part: str, shrink: Callable[[bytes], bytes], progress: Progress) -> Tally:
        """Writes all files of the set; one that is there is whole, and its tally lies beside it until the end."""
        total, splits = Tally(), []
        for split, strands in self._form.splits.items():
            lengths, num_bytes = [], 0
            for path, tally in self._write_split(part, split, strands, shrink, progress):
                total.add(tally)
                lengths.append(str(tally.images))
                num_bytes += tf.io.gfile.stat(path).length
            splits.append(
                {
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                    "name": split,
                    "numBytes": str(num_bytes),
                    "shardLengths": lengths,
                }
            )
        _write_description(part, splits)
        remove_notes(part)
        return total

    def _write_split(
        self, part: str, split: str, strands: list[Strand], shrink: Callable[[bytes], bytes], progress: Progress
    ) -> Iterator[tuple[str, Tally]]:
        """Yields each file of a split with its tally; the examples of the next one are read meanwhile."""
        count, places = self._form.num_shards(split), [0] * len(strands)
        names = [f"imagenet2012-{split}.tfrecord-{number:05}-of-{count:05}" for number in range(count)]
        notes = [os.path.join(part, f".{name}.json") for name in names]
        first = 0
        while first < count and tf.io.gfile.exists(notes[first]):
            found = read_json(notes[first])
            tally, places = Tally(**found["tally"]), found["places"]
            progress(tally.images + len(tally.left_out))
            yield os.path.join(part, names[first]), tally
            first += 1
        with concurrent.futures.ThreadPoolExecutor(1) as reader:
            if first < count:
                ahead = reader.submit(_share, strands, places, first, count)
            for number in range(first, count):
                examples, places = ahead.result()
                if number + 1 < count:
                    ahead = reader.submit(_share, strands, places, number + 1, count)
                mixed = (examples[i] for i in order.permutation(0, number, len(examples)))
                path = os.path.join(part, names[number])
                tally = write_shard(path, split, map(_record, mixed), shrink, progress)
                write_json(notes[number], {"tally": dataclasses.asdict(tally), "places": places})
                yield path, tally


def _share(strands: list[Strand], places: list[int], number: int, count: int) -> tuple[list[Example], list[int]]:
    """Returns the examples of a file, and where each strand goes on after them."""
    found, after = [], []
    for strand, place in zip(strands, places, strict=True):
        end = strand.size * (number + 1) // count
        if place < end:
            for reached, example in strand.examples(place):
                found.append(example)
                place = reached
                if place >= end:
                    break
            else:
                place = strand.size
        after.append(place)
    return found, after


def _record(example: Example) -> "tf.train.Example":
    """Returns an example as TFDS stores it."""
    feature, label = tf.train.Feature, facts.label(example.wnid, example.file_name)
    features = {
        "image": feature(bytes_list=tf.train.BytesList(value=[example.contents])),
        "label": feature(int64_list=tf.train.Int64List(value=[label])),
        "file_name": feature(bytes_list=tf.train.BytesList(value=[example.file_name.encode()])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _write_description(part: str, splits: list[dict]) -> None:
    """Writes what TFDS has beside the files of a set; the file that makes it one comes last."""
    facts.features().save_config(part)
    info = {
        "description": "ILSVRC 2012, commonly known as ImageNet; stored by mnet_jax.",
        "fileFormat": "tfrecord",
        "location": {"urls": ["https://image-net.org/"]},
        "moduleName": "mnet_jax.data.imagenet",
        "name": "imagenet2012",
        "splits": splits,
        "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
        "version": facts.VERSION,
    }
    write_json(os.path.join(part, "dataset_info.json"), info)
