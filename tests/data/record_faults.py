"""Ways to damage a data set in TFRecords, and an epoch of training and an evaluation on what is left."""

import pathlib

import numpy as np
from sample_sets import encode

from mnet_jax.config import load as load_config
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.tensorflow_setup import tf


def file_of(place, split):
    (path,) = pathlib.Path(place).rglob(f"digits-{split}.tfrecord*")
    return path


def records(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def write(path, contents):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in contents:
            writer.write(record)


def change(path, numbers, **features):
    """Writes other values into some records: image=bytes, label=int; None removes the feature."""
    found = records(path)
    for number in numbers:
        example = tf.train.Example.FromString(found[number])
        for name, value in features.items():
            del example.features.feature[name]
            if isinstance(value, bytes):
                example.features.feature[name].bytes_list.value.append(value)
            elif value is not None:
                example.features.feature[name].int64_list.value.append(value)
        found[number] = example.SerializeToString()
    write(path, found)


def opened(place, cache_mb=1024, **fields):
    config = load_config("digits")
    config.data.data_dir, config.data.cache_mb = str(place), cache_mb
    config.data.update(fields)
    return Dataset.open(config.data, {"label": Label()})


def train(dataset, steps=45, batch_size=32):
    """The batches of an epoch."""
    batches = pipeline.train_batches(dataset, batch_size=batch_size, seed=3, start_step=0)
    return [next(batches) for _ in range(steps)]


def evaluate(dataset):
    return list(pipeline.eval_batches(dataset, batch_size=64))


def cut(path):
    write(path, records(path)[:-100])


def empty(path):
    path.write_bytes(b"")


def cut_inside_a_record(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)


def without_label(path):
    change(path, [7], label=None)


FILES = {
    "cut at a record's border": (cut, r" is cut short: it has [\d,]+ records of [\d,]+\."),
    "emptied": (empty, r" is cut short: it has 0 records of [\d,]+\."),
    "removed": (pathlib.Path.unlink, r" is missing\."),
    "cut inside a record": (cut_inside_a_record, r" is damaged after record [\d]+ \(truncated record"),
    "one bit flipped": (flip, r" is damaged after record [\d]+ \(corrupted record"),
    "a record without its label": (without_label, r": record 7 lacks 'label'\."),
}


GARBAGE = {
    "no image": b"these bytes are no image at all",
    "empty": b"",
    "a JPEG without its header": encode(np.zeros((8, 8, 3), np.uint8), "JPEG")[:3] + bytes(200),
    "half a PNG": encode(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), "PNG")[:3000],
}
