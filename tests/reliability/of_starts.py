"""Faults that train.py itself meets: its flags, its directory, the disk, the machine, the network, the numbers."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from unittest import mock

import faults
import jax
import small_run
from fault import NOTHING, REFUSED, Fault, Outcome, Things, cut, flip, steps, train

from mnet_jax import files
from mnet_jax.training import loop, parallel
from mnet_jax.training.reporting import reporter

SHORT = {"train.num_steps": 4}


def outcome(code: int, said: str, run: pathlib.Path | None = None) -> Outcome:
    """Returns what came of a start in an empty directory, or in `run`, which has these checkpoints still."""
    if code == 0:
        return Outcome(said, NOTHING)
    saved = steps(run) if run is not None else []
    return Outcome(said, f"steps after {saved[-1]}" if saved else REFUSED)


def typed(*flags: str, **fields: object) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: starts a new run with something mistyped in its flags."""
    return lambda things, place: outcome(*train(things, place / "run", {**SHORT, **fields}, *flags))


TYPED = [
    Fault("a field that there is not", typed("--config.model.nme=v2"), r"Did you mean 'model.name'\?", REFUSED),
    Fault("a field of another section", typed("--config.train.label_smoothing=0"), r"task.label_smoothing", REFUSED),
    Fault(
        "a text for a number",
        typed("--config.train.batch_size=many"),
        r"train.batch_size=many: it must be a whole",
        REFUSED,
    ),
    Fault("a value out of its range", typed("--config.ema.decay=1.5"), r"ema.decay=1.5: it must be ", REFUSED),
    Fault("a choice that there is not", typed("--config.optimizer.name=adam"), r"Did you mean 'adamw'\?", REFUSED),
    Fault("two units for one duration", typed("--config.train.num_epochs=2"), r"two units for one duration", REFUSED),
    Fault("a model that there is not", typed("--config.model.name=v3_larg"), r"v3_large", REFUSED),
    Fault("an option that there is not", typed("--wrkdir=x"), r"Did you mean 'workdir'\?", REFUSED),
    Fault("a data set that there is not", typed("--config.data.name=cifar11"), r"cifar1", REFUSED),
    Fault("a split that there is not", typed("--config.data.eval_split=tset"), r"tset", REFUSED),
    Fault("more devices than there are", typed("--config.train.num_devices=99"), r"there are \d+ devices", REFUSED),
    Fault("weights that are not there", typed("--config.init.weights=runs/none.pth"), r"none.pth", REFUSED),
    Fault("no checkpoint to start from", typed("--config.init.checkpoint=/none"), r"no checkpoint in", REFUSED),
]


# --- Its directory ---


def again(
    damage: Callable[[pathlib.Path], object], *flags: str, **fields: object
) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: damages a run of four steps, all saved, and goes on to step 6."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        run = things.copy("trained", place)
        damage(run)
        before = steps(run)
        code, said = train(things, run, {**SHORT, **fields}, *flags)
        assert code == 0 or steps(run) == before
        return Outcome(said, NOTHING if code == 0 else REFUSED)

    return inject


def other_model(run: pathlib.Path) -> None:
    """Puts the checkpoint of another network in the place of the newest."""
    newest = faults.checkpoint(run)
    shutil.rmtree(newest)
    faults.make_run(run.parent / "other", steps=(4,))
    shutil.copytree(run.parent / "other" / "checkpoints" / "4", newest)


def in_use(things: Things, place: pathlib.Path) -> Outcome:
    run = things.copy("trained", place)
    lock = files.Lock(run)
    lock.take()
    try:
        return outcome(*train(things, run, SHORT))
    finally:
        lock.close()


def moved_away(things: Things, place: pathlib.Path) -> Outcome:
    """Moves the directory of a run while it trains."""
    run = place / "run"

    def move() -> None:
        while len(steps(run)) < 2:
            time.sleep(0.001)
        run.rename(place / "moved")

    mover = threading.Thread(target=move)
    mover.start()
    code, said = train(things, run, {"train.num_steps": 60})
    mover.join()
    return outcome(code, said, place / "moved")


def a_file(things: Things, place: pathlib.Path) -> Outcome:
    (place / "run").write_text("mine")
    return outcome(*train(things, place / "run", SHORT))


def on_small_disk(mount: str) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: trains in a file system of its own, mounted with these options."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        disk = place / "disk"
        disk.mkdir()
        line, environment = small_run.command(
            place,
            "disk/run",
            {"train.num_steps": 60, "eval.every_steps": 30, "checkpoint.every_steps": 1, "checkpoint.keep": 50},
        )
        line = [*line, f"--config.data.data_dir={things.digits}"]
        enter = [
            "unshare",
            "--mount",
            "--map-root-user",
            "sh",
            "-c",
            f'mount -t tmpfs -o {mount} disk {disk} && exec "$@"',
            "sh",
        ]
        listed = ["sh", "-c", f'"$@"; code=$?; ls {disk}/run/checkpoints; exit $code', "sh"]
        done = subprocess.run(
            [*enter, *listed, *line], env=environment, capture_output=True, text=True, check=False, cwd=place
        )
        saved = [int(name) for name in done.stdout.split() if name.isdigit()]
        return Outcome(done.stderr, f"steps after {max(saved)}" if saved else REFUSED)

    return inject


def mounts() -> bool:
    """Returns whether this system lets anybody mount a small file system."""
    enter = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(enter, capture_output=True).returncode == 0


DIRECTORY = [
    Fault("two runs in one directory", in_use, r"is in use by another run \(process \d+ on .*give another", REFUSED),
    Fault("another config in the directory of a run", again(lambda run: None, seed=5), r"another config", REFUSED),
    Fault(
        "the checkpoint of another model in its place",
        again(other_model),
        r"is not a checkpoint of this run's model: .*Move it away, and the run goes on from the one before",
        REFUSED,
    ),
    Fault("the directory is a file", a_file, r"run is a file: give another --workdir", REFUSED),
    Fault(
        "the directory is moved away while it trains",
        moved_away,
        r"could not be written to \S+: (the directory was moved or removed|No such file or directory)\. Step \d is",
        "steps after",
    ),
]
if mounts():
    DIRECTORY += [
        Fault(
            "the disk is full (a file system of 12 MB)",
            on_small_disk("size=12m"),
            r"train.py: the checkpoint of step \d+ could not be written to .*: No space left on device. Step \d+ is",
            "steps after",
        ),
        Fault(
            "the disk can only be read",
            on_small_disk("size=1m,ro"),
            r"Read-only file system: give another --workdir",
            REFUSED,
        ),
    ]


# --- Numbers and memory ---


@contextlib.contextmanager
def failing_steps(error: Exception) -> Iterator[None]:
    """Lets the third step fail as a device does: when somebody waits for its results."""
    usual, calls = loop.Window.add, []

    def add(window: loop.Window, *args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise error
        usual(window, *args)

    with mock.patch.object(loop.Window, "add", add):
        yield


def no_memory(things: Things, place: pathlib.Path) -> Outcome:
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 GiB.\nmore\nlines")
    with failing_steps(error):
        code, said = train(things, place / "run", SHORT)
    return outcome(code, said, place / "run")


def not_finite(**fields: object) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: a learning rate that no network survives."""
    wild = {"schedule.lr_per_256": 1e30, "optimizer.name": "sgd", "train.num_steps": 12, "eval.every_steps": 12}
    wild |= {"schedule.warmup_steps": 0, "checkpoint.every_steps": 12, "log.every_steps": 3}

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        code, said = train(things, place / "run", {**wild, **fields})
        assert steps(place / "run") == []  # nothing that is not finite was saved
        return Outcome(said, "steps since the last checkpoint" if code == 2 else f"code {code}")

    return inject


def stalled(things: Things, place: pathlib.Path) -> Outcome:
    """The third batch takes twenty times as long as anybody waits (here a tenth of a second in place of a minute)."""
    usual = parallel.Devices.feed

    def feed(devices: parallel.Devices, batches: Iterator, *, ahead: int = 2) -> Iterator:
        for number, batch in enumerate(usual(devices, batches, ahead=ahead)):
            if number == 2:
                time.sleep(2.0)
            yield batch

    with mock.patch.object(parallel.Devices, "feed", feed), mock.patch.object(reporter, "_STALLED_SECONDS", 1.2):
        return outcome(*train(things, place / "run", SHORT))


MACHINE = [
    Fault(
        "the loss is not finite any more",
        not_finite(),
        r"^train.py: the (loss|gradient) is not finite at step \d+ .*--config.schedule.lr_per_256",
        "steps since the last checkpoint",
    ),
    Fault(
        "the memory of the device is exhausted",
        no_memory,
        r"a step of 8 images a device does not fit into its memory: type --config.train.accumulate_steps=2 .*=4",
        "steps after",
    ),
    Fault(
        "a batch does not come for a minute (here 1.2 s)",
        stalled,
        r"warning: the run has been waiting for the batch of step \d+ for",
    ),
]


# --- Weights and checkpoints to start from ---


def from_weights(name: str, damage: Callable[[pathlib.Path], object]) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: starts from a damaged file of weights."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        folder = things.copy("weights", place)
        damage(folder / name)
        return outcome(*train(things, place / "run", {**SHORT, "init.weights": folder / name}))

    return inject


def from_checkpoint(damage: Callable[[pathlib.Path], object]) -> Callable[[Things, pathlib.Path], Outcome]:
    """Returns an injection: fine-tunes a run whose newest checkpoint is damaged."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        run = things.copy("trained", place)
        damage(run)
        return outcome(*train(things, place / "run", {**SHORT, "init.checkpoint": run}))

    return inject


def hostile(path: pathlib.Path) -> None:
    """Writes a pickle that runs a program."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {path.parent}/owned",)

    path.write_bytes(pickle.dumps({"state_dict": Evil()}, 2))


WEIGHTS = [
    *(
        Fault(f"weights to start from: {name} cut in half", from_weights(name, cut), rf"{name}", REFUSED)
        for name in ("m.pth", "old.pth", "m.h5", "m.safetensors")
    ),
    Fault("weights to start from: a pickle that runs a program", from_weights("m.pth", hostile), r"m.pth", REFUSED),
    Fault(
        "weights to start from: a text", from_weights("m.pth", lambda path: path.write_text("hi")), r"m.pth", REFUSED
    ),
    Fault(
        "checkpoint to fine-tune: one bit flipped",
        from_checkpoint(lambda run: flip(faults.largest_file(faults.checkpoint(run)))),
        r"is damaged: .* is not what was written: type --step with another one|is damaged",
        REFUSED,
    ),
]


# --- Buckets ---


def without_network(*flags: str, fields: dict[str, object] | None = None, workdir: str = "run") -> Callable:
    """Returns an injection: starts where there is no network at all."""

    def inject(things: Things, place: pathlib.Path) -> Outcome:
        line, environment = small_run.command(place, "run", SHORT)
        line = [part for part in line if not part.startswith(("--workdir", "--config.data.data_dir"))]
        given = {"data.data_dir": things.digits, "schedule.warmup_steps": 1, **(fields or {})}
        line += [f"--workdir={workdir if '://' in workdir else place / workdir}", *flags]
        line += [f"--config.{path}={value}" for path, value in given.items()]
        alone = ["unshare", "--net", "--map-root-user"]
        done = subprocess.run(
            [*alone, *line], env=environment, capture_output=True, text=True, check=False, cwd=place, timeout=280
        )
        return outcome(done.returncode, done.stderr)

    return inject


BUCKETS = [
    Fault(
        f"`{scheme}` for the {what} without a network",
        without_network(**options),
        rf"^train.py: {scheme}\S+ cannot be reached.* directory as (--workdir|data.data_dir)",
        REFUSED,
    )
    for scheme in ("gs://", "s3://")
    for what, options in {
        "directory of the run": {"workdir": f"{scheme}bucket/run"},
        "data": {"fields": {"data.name": "cifar10", "data.data_dir": f"{scheme}bucket/tfds"}},
    }.items()
]
