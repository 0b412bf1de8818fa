"""Names of files and folders that people have: not UTF-8, with escape sequences, like formulas, links in circles."""

import csv
import io
import os

import numpy as np
import pytest
from sample_sets import config, encode, joined, opened, picture, train

from mnet_jax import files
from mnet_jax.commands import cli
from mnet_jax.commands.predict import find_images
from mnet_jax.data import decode, fixed_views, folder, manifest, pipeline
from mnet_jax.tasks.classification import report

ESCAPE = "\x1b[31mred\x07"


def write(root, names, seed=0):
    """Writes another photo under each name, which may be bytes that are no text."""
    for number, name in enumerate(names, seed):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(encode(picture(40, 44, seed=number), "JPEG"))
    return seed + len(names)


@pytest.fixture
def photos(tmp_path):
    """Photos in a class whose name is Latin-1, one that obeys a terminal, one like a formula, and an ordinary one."""
    root = tmp_path / "photos"
    classes = [b"caf\xe9", ESCAPE.encode(), b"=cmd|calc", b"plain"]
    write(root, [one + b"/f\xfcr %d.jpg" % number for one in classes for number in range(6)])
    write(root, ["plain/line\nbreak.jpg", f"plain/{ESCAPE}.jpg", "plain/umlaut ü.jpg"], 24)
    return root


NAMES = ("=cmd|calc", r"\x1b[31mred\x07", r"caf\xe9", "plain")


def test_photos_under_all_names_are_used_and_shown_as_text(photos, tmp_path):
    data = config(name="folder", folder=str(photos))
    dataset = opened(data)
    assert sorted(dataset.info.class_names) == sorted(NAMES)
    assert dataset.listing.left_out == ()
    assert sum(dataset.source.sizes.values()) == 27
    batches = train(data, 9, 4) + list(pipeline.eval_batches(dataset, batch_size=4))
    assert joined(batches, "image").std() > 0
    assert len(list(fixed_views.pictures(dataset, "validation", [0, 1]))) == 2

    (tmp_path / "run").mkdir()
    (photos / f"{ESCAPE}.txt").write_text("beside the classes")
    told = []
    manifest.save(opened(data).source, str(tmp_path / "run"), told.append)
    text = (tmp_path / "run" / "photos.csv").read_text()
    assert not set(text) & {"\x1b", "\x07", "\r"}
    assert r"caf\xe9/f\xfcr 0.jpg" in text
    assert r"plain/line\nbreak.jpg" in text
    rows = list(csv.reader(io.StringIO(text)))
    assert {row[1] for row in rows[1:]} == {"'=cmd|calc", *NAMES[1:]}
    assert all(not row[0].startswith(("=", "+", "-", "@")) for row in rows)
    assert r"\x1b[31mred\x07.txt" in (tmp_path / "run" / "left_out.csv").read_text()

    resumed = data.copy_and_resolve_references()
    resumed.manifest = str(tmp_path / "run" / "photos.csv")
    again = opened(resumed)
    assert again.listing.splits == dataset.listing.splits
    assert again.info.class_names == dataset.info.class_names


def test_prediction_finds_and_reads_them(photos, capfd):
    paths = find_images([str(photos)])
    assert len(paths) == 27
    for path in paths:
        assert decode.load_image(path).shape == (40, 44, 3)
    with pytest.raises(ValueError, match="no such image"):
        decode.load_image(os.path.join(str(photos), os.fsdecode(b"caf\xe9"), "gone.jpg"))
    os.mkfifo(os.path.join(os.fsencode(photos), b"f\xe9\x1b[2J"))
    (photos / "notes.txt").write_text("none")
    find_images([str(photos)])
    assert "\x1b" not in capfd.readouterr().err


def test_the_report_of_such_classes(photos, tmp_path):
    dataset = opened(config(name="folder", folder=str(photos)))
    count, split = dataset.info.num_eval, dataset.info.eval_split
    labels = dataset.values("label", split)
    logits = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
    (tmp_path / "run").mkdir()
    outputs = [(logits, {"label": labels})]
    lines = report.report(None, outputs, dataset, str(tmp_path / "run"), step=1)
    for name in ("predictions.csv", "classes.csv", "confusion.csv"):
        text = (tmp_path / "run" / name).read_text()
        assert not set(text) & {"\x1b", "\x07"}
        assert "'=cmd|calc" in text
    assert (tmp_path / "run" / "mistakes.png").stat().st_size > 1000
    assert all(files.printable(line) == line for line in lines)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ü 猫 🐈", "plain ü 猫 🐈"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x9b2Jb", r"a\x9b2Jb"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\ud800", r"\ud800"),
    ],
)
def test_names_are_shown(name, shown):
    assert files.printable(name) == shown


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+2", "@x", "'=1", "''=1", "-3", "3e5", "'", "it's", "plain", ""])
def test_a_name_comes_back_from_a_table(tmp_path, name):
    files.write_csv(tmp_path / "a.csv", ("name",), [(name,), ("end",)])
    [_, [cell], _] = csv.reader(io.StringIO((tmp_path / "a.csv").read_text())) if name else ([], [""], [])
    assert files.from_cell(cell) == name
    assert not cell.startswith(("=", "@"))


def test_names_from_a_file_do_not_reach_the_terminal_as_they_are(monkeypatch, capsys):
    """Class names come with weights and checkpoints that others made."""

    class Command:
        @staticmethod
        def add_arguments(parser):
            del parser

        @staticmethod
        def run(args, out):
            del args
            print(f" 97.50 %  {ESCAPE}\n  2.50 %  caf\udce9", file=out)
            files.tell(f"class {ESCAPE}")
            raise ValueError(f"no class {ESCAPE}")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: Command)
    assert cli.main(["predict"]) == 2
    out, err = capsys.readouterr()
    assert out == " 97.50 %  \\x1b[31mred\\x07\n  2.50 %  caf\\xe9\n"
    assert err == "mnet: class \\x1b[31mred\\x07\nmnet: no class \\x1b[31mred\\x07\n"


def test_links_are_followed_alike_and_never_in_circles(tmp_path):
    root, other = tmp_path / "photos", tmp_path / "elsewhere"
    seed = write(root, [f"{name}/{number}.jpg" for name in ("cats", "dogs") for number in range(5)])
    write(other, ["in/1.jpg", "in/2.jpg"], seed)
    (root / "cats" / "linked").symlink_to(other)
    (root / "cats" / "up").symlink_to(root)
    (root / "dogs" / "here").symlink_to(root / "dogs")
    (root / "all").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    listing = folder.scan(str(root))
    used = sorted(file.path for split in listing.splits.values() for file in split)
    assert listing.class_names == ("cats", "dogs")
    assert [path for path in used if "linked" in path] == [
        str(root / "cats" / "linked" / "in" / f"{n}.jpg") for n in (1, 2)
    ]
    assert len(used) == 12
    assert sorted(find_images([str(root / "cats"), str(root / "dogs")])) == used
