"""Faults in data: TFRecords that are cut or changed, images that are none, labels that no class has, hostile photos."""

import os
import pathlib
import shutil
from collections.abc import Callable

import record_faults
from fault import NOTHING, Fault, Outcome, Things, cut, flip, listening, mnet

from mnet_jax.config import load as load_config
from mnet_jax.data import manifest, pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.files import printable

END = "steps since the last checkpoint"
Damage = Callable[[pathlib.Path], object]


def batches(damage: Damage, split: str, **fields: object) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages the file of a split of digits, then trains an epoch or evaluates."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        digits = things.copy("digits", place)
        damage(record_faults.file_of(digits, split))
        lost = NOTHING
        with listening() as heard:
            try:
                found = record_faults.opened(digits, **fields)
                record_faults.train(found) if split == "train" else record_faults.evaluate(found)
            except ValueError as error:
                heard.write(f"train.py: {error}\n")
                lost = END
        return Outcome(heard.getvalue(), lost)

    return inject


def images(garbage: bytes, *numbers: int) -> Damage:
    """Returns a damage: puts other bytes in place of images."""
    return lambda path: record_faults.change(path, numbers, image=garbage)


RECORDS = [
    *(
        Fault(f"{what} TFRecord: {name}", batches(damage, split, cache_mb=cache_mb), rf"digits-{split}\S+{said}", END)
        for what, split, cache_mb in (
            ("training", "train", 1024),
            ("streamed training", "train", 0),
            ("evaluation", "test", 1024),
        )
        for name, (damage, said) in record_faults.FILES.items()
        if what != "streamed training" or name in ("cut at a record's border", "one bit flipped")
    ),
    *(
        Fault(
            f"{what}: the label {label} among 10 classes",
            batches(lambda path, label=label: record_faults.change(path, [20], label=label), split),
            rf"^train.py: example 20 of digits '{split}' \(record 20 of \S+\) has the class {label}, .*mend its labels",
            END,
        )
        for what, split in (("training", "train"), ("evaluation", "test"))
        for label in (77, -5)
    ),
    *(
        Fault(
            f"training: an image is {name}",
            batches(images(garbage, 11), "train"),
            r"^mnet: warning: example 11 of digits 'train' \(record 11 of \S+\) cannot be decoded: another one takes",
        )
        for name, garbage in record_faults.GARBAGE.items()
    ),
    Fault(
        "training: eleven images are none",
        batches(images(b"none", *range(50, 61)), "train"),
        r"cannot be decoded, nor can \d+ others, more than data.max_unreadable=10: mend",
        END,
    ),
    Fault(
        "evaluation: an image is none",
        batches(images(b"none", 100), "test"),
        r"^train.py: example 100 of digits 'test' \(record 100 of \S+\) cannot be decoded, and an evaluation counts",
        END,
    ),
]

# --- Photos ---


def photos(damage: Damage) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages a folder of photos, and reads all of it as training and an evaluation do."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        folder = things.copy("photos", place)
        damage(folder)
        config = load_config("digits")
        config.data.update(name="folder", folder=str(folder))
        (place / "run").mkdir()
        with listening() as heard:
            try:
                opened = Dataset.open(config.data, {"label": Label()})
                manifest.save(
                    opened.source, str(place / "run"), lambda line: heard.write(f"warning: {printable(line)}\n")
                )
                found = pipeline.train_batches(opened, batch_size=4, seed=0, start_step=0)
                for _ in range(8):
                    next(found)
                assert all(len(batch["image"]) == 4 for batch in pipeline.eval_batches(opened, batch_size=4))
            except ValueError as error:
                heard.write(f"train.py: {error}\n")
                return Outcome(heard.getvalue(), "nothing: refused at the start")
        return Outcome(heard.getvalue(), NOTHING)

    return inject


def huge(folder: pathlib.Path) -> None:
    """Adds a PNG whose header claims 65,500 x 65,500 pixels."""
    from sample_sets import encode, picture

    contents = bytearray(encode(picture(8, 8), "PNG"))
    contents[16:24] = (65_500).to_bytes(4, "big") * 2
    (folder / "cats" / "huge.png").write_bytes(contents)


def huge_jpeg(folder: pathlib.Path) -> None:
    """Makes the header of a JPEG claim 65,500 x 65,500 pixels."""
    path = folder / "cats" / "00.jpg"
    contents = bytearray(path.read_bytes())
    place = contents.index(b"\xff\xc0") + 5  # frame header: length, precision, height, width
    contents[place : place + 4] = (65_500).to_bytes(2, "big") * 2
    path.write_bytes(contents)


def one_class(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "dogs")


def no_images(folder: pathlib.Path) -> None:
    for path in folder.rglob("*.jpg"):
        path.write_text("text")


def copies(folder: pathlib.Path) -> None:
    shutil.copy(folder / "cats" / "00.jpg", folder / "dogs" / "copy.jpg")


LEFT_OUT = r"^warning: \S+: left out \d files?: .*All are listed in \S*left_out.csv"
PHOTOS = [
    *(
        Fault(f"photos: {name}", photos(damage), LEFT_OUT)
        for name, damage in {
            "a named pipe `pipe.jpg`": lambda folder: os.mkfifo(folder / "cats" / "pipe.jpg"),
            "a PNG whose header claims 65,500 x 65,500 pixels": huge,
            "a JPEG whose header claims 65,500 x 65,500 pixels": huge_jpeg,
            "a JPEG cut in half": lambda folder: cut(folder / "cats" / "00.jpg"),
            "an empty file": lambda folder: (folder / "cats" / "00.jpg").write_bytes(b""),
            "a text called `.jpg`": lambda folder: (folder / "cats" / "00.jpg").write_text("hello"),
            "a link to nowhere": lambda folder: (folder / "cats" / "link.jpg").symlink_to("/nowhere"),
            "one photo in two classes": copies,
        }.items()
    ),
    Fault("photos: a bit flipped in a JPEG", photos(lambda f: flip(f / "cats" / "00.jpg")), r"^\(nothing"),
    Fault(
        "photos: ESC and BEL in the name of an image that is none",
        photos(lambda folder: (folder / "cats" / "\x1b[31m\a.jpg").write_text("hello")),
        r"left out 1 files: cats/\\x1b\[31m\\x07.jpg \(not an image\)",
    ),
    Fault(
        "photos: a class called `=cmd` (a formula)",
        photos(lambda folder: (folder / "cats").rename(folder / "=cmd")),
        r"^\(nothing",
    ),
    Fault(
        "photos: one class only",
        photos(one_class),
        r"has one class only \('cats'\): put",
        "nothing: refused at the start",
    ),
    Fault(
        "photos: none of the files is an image", photos(no_images), r"has no images", "nothing: refused at the start"
    ),
    Fault("photos: the folder is not there", photos(shutil.rmtree), r"no such folder", "nothing: refused at the start"),
]


# --- `mnet predict` on hostile photos ---


def predicted(damage: Damage) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: predicts a damaged photo and a whole one."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        folder = things.copy("photos", place) / "cats"
        damage(folder / "00.jpg")
        code, said = mnet("predict", "--checkpoint", things.trained, folder / "00.jpg", folder / "02.jpg")
        assert "02.jpg" in said
        return Outcome(said, "that image (exit code 1)" if code == 1 else f"code {code}")

    return inject


def pipe(path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_huge(path: pathlib.Path) -> None:
    huge_jpeg(path.parents[1])


PREDICTED = [
    Fault(f"`mnet predict`: {name}", predicted(damage), r"^mnet: .*00\.jpg", "that image (exit code 1)")
    for name, damage in {
        "a named pipe": pipe,
        "a JPEG cut in half": cut,
        "a text": lambda path: path.write_text("text"),
        "a JPEG that claims 65,500 x 65,500 pixels": folder_huge,
        "no such file": pathlib.Path.unlink,
    }.items()
]
