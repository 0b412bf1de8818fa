"""Faults in exported files, and readers beside a run that saves."""

import pathlib
import threading
from collections.abc import Callable

import faults
from fault import NOTHING, Fault, Outcome, Things, cut, flip, mnet

from mnet_jax.training import checkpoint

NEW = "the file: export it again"


def doctored(name: str, damage: Callable[[pathlib.Path], object]) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages an exported file and asks `mnet doctor`."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        path = things.copy("exported", place) / name
        damage(path)
        code, said = mnet("doctor", path)
        return Outcome(said, NEW if code == 1 else f"code {code}")

    return inject


def verified(name: str, damage: Callable[[pathlib.Path], object]) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages an exported file and compares it with its model."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        path = things.copy("exported", place) / name
        damage(path)
        code, said = mnet("verify-export", path, "--checkpoint", things.trained, "--folder", things.photos)
        return Outcome(said, NEW if code == 2 else f"code {code}")

    return inject


FILES = [
    *(
        Fault(f"`mnet doctor`: one bit flipped in {name}", doctored(name, flip), rf"^BAD  \S*{name}.* is damaged", NEW)
        for name in ("model.tflite", "model.onnx", "model.stablehlo")
    ),
    Fault(
        "`mnet doctor`: one bit flipped in a SavedModel",
        doctored("model.savedmodel", lambda path: flip(faults.largest_file(path))),
        r"^BAD  .*model.savedmodel/\S+ is damaged",
        NEW,
    ),
    *(
        Fault(f"`mnet doctor`: {name} cut in half", doctored(name, cut), rf"^BAD  \S*{name}", NEW)
        for name in ("model.tflite", "model.onnx", "model.stablehlo")
    ),
    Fault(
        "`mnet doctor`: a file of a SavedModel is missing",
        doctored("model.savedmodel", lambda path: (path / "assets.extra" / "labels.txt").unlink()),
        r"^BAD  .*model.savedmodel",
        NEW,
    ),
    *(
        Fault(
            f"`mnet verify-export`: one bit flipped in {name}",
            verified(name, flip),
            rf"^mnet: \S*{name} is damaged",
            NEW,
        )
        for name in ("model.tflite", "model.onnx")
    ),
    *(
        Fault(f"`mnet verify-export`: {name} cut in half", verified(name, cut), rf"^mnet: \S*{name}", NEW)
        for name in ("model.tflite", "model.onnx", "model.stablehlo")
    ),
]


def beside(keep: int) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: loads the newest and the best checkpoint over and over while a run saves and deletes."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        faults.make_run(place / "run", keep=keep, steps=(1,))
        run = threading.Thread(
            target=faults.make_run, args=(place / "run",), kwargs={"keep": keep, "steps": range(2, 40)}
        )
        run.start()
        said, loaded = [], 0
        while run.is_alive():
            for step in ("latest", "best"):
                try:
                    checkpoint.load(str(place / "run"), step=step)
                    loaded += 1
                except ValueError as error:
                    said.append(f"mnet: {error}")
        run.join()
        assert loaded > 20
        return Outcome("\n".join(said), NOTHING)

    return inject


def damaged_newest(things: Things, place: pathlib.Path) -> Outcome:
    run = things.copy("trained", place)
    flip(faults.largest_file(faults.checkpoint(run)))
    code, said = mnet("predict", "--checkpoint", run, things.photos / "cats" / "00.jpg")
    return Outcome(said, NOTHING if code == 2 else f"code {code}")


READERS = [
    *(
        Fault(
            f"checkpoints are loaded while a run saves and deletes (`checkpoint.keep={keep}`)",
            beside(keep),
            r"^\(nothing",
        )
        for keep in (1, 3)
    ),
    Fault(
        "`mnet predict`: one bit flipped in the newest checkpoint",
        damaged_newest,
        r"^mnet: \S+ is damaged: .*: type --step with another one \(",
    ),
]
