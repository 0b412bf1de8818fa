"""What a fault of docs/reliability.md's table is, and what faults are injected into: made once, copied for each."""

import contextlib
import dataclasses
import functools
import io
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]

NOTHING = "nothing"
REFUSED = "nothing: refused at the start"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the user saw, all of it, and what was lost."""

    said: str
    lost: str

    @property
    def line(self) -> str:
        """The lines that are warnings or errors, or that nothing was said."""
        lines = [line for line in self.said.splitlines() if re.match(r"(mnet|train\.py|warning|BAD )", line)]
        return " ".join(dict.fromkeys(lines)) or "(nothing: it goes on)"


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that breaks, and what must come of it."""

    name: str
    inject: Callable[["Things", pathlib.Path], Outcome]  # the second: an empty directory of its own
    said: str  # a pattern that the line has
    lost: str = NOTHING


class Things:
    """What faults are injected into; each is made when it is first asked for."""

    def __init__(self, place: pathlib.Path):
        """Makes nothing yet."""
        self.place = place

    @functools.cached_property
    def run(self) -> pathlib.Path:
        """The directory of a run with checkpoints at steps 10, 20 and 30."""
        import faults

        faults.make_run(self.place / "run")
        return self.place / "run"

    @functools.cached_property
    def digits(self) -> pathlib.Path:
        """A TFDS directory with the digits."""
        from mnet_jax.data import digits

        digits.prepare(str(self.place / "digits"))
        return self.place / "digits"

    @functools.cached_property
    def photos(self) -> pathlib.Path:
        """A folder of two classes with ten photos each."""
        from sample_sets import encode, picture

        for number in range(20):
            folder = self.place / "photos" / ("cats", "dogs")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:02}.jpg").write_bytes(encode(picture(40, 48, seed=number), "JPEG"))
        return self.place / "photos"

    @functools.cached_property
    def trained(self) -> pathlib.Path:
        """The directory of a run of four steps, all saved, that train.py made."""
        code, said = train(self, self.place / "trained", {"train.num_steps": 4})
        assert code == 0, said
        return self.place / "trained"

    @functools.cached_property
    def exported(self) -> pathlib.Path:
        """A folder with a network in each format: model.tflite, ..."""
        from networks import MEAN, STD, about, fold, random_variables

        from mnet_jax.deploy import formats
        from mnet_jax.tasks.classification.network import create_model

        plan = create_model("v1", num_classes=7, width=0.25).plan
        graph = fold(plan, random_variables(plan), image_size=32, input="uint8", mean=MEAN, std=STD)
        (self.place / "exported").mkdir()
        for format in formats.FORMATS:
            formats.write(graph, about(plan, 32), self.place / "exported" / f"model.{format}", format)
        return self.place / "exported"

    @functools.cached_property
    def weights(self) -> pathlib.Path:
        """A folder with files of weights as other libraries write them: m.pth, m.h5, m.safetensors."""
        import files

        folder = self.place / "weights"
        folder.mkdir()
        torch = files.library_arrays(files.layout_of("torchvision"), "v2", 0.35)
        files.save_torch(folder / "m.pth", torch)
        files.save_torch(folder / "old.pth", torch, stream=True)
        files.save_keras(folder / "m.h5", files.library_arrays(files.layout_of("keras"), "v2", 0.35))
        timm = files.library_arrays(files.layout_of("timm"), "v4_conv_small", 0.35)
        about = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 10}
        files.save_safetensors(folder / "m.safetensors", timm, **about)
        return folder

    def copy(self, name: str, place: pathlib.Path) -> pathlib.Path:
        """Returns a copy of one of these that may be damaged."""
        source = getattr(self, name)
        return pathlib.Path(shutil.copytree(source, place / name))


@contextlib.contextmanager
def listening() -> Iterator[io.StringIO]:
    """Collects what is said on stderr."""
    heard = io.StringIO()
    with contextlib.redirect_stderr(heard):
        yield heard


def train(
    things: Things, workdir: pathlib.Path | str, fields: dict[str, object], *flags: str, config: str = "digits"
) -> tuple[int, str]:
    """Returns the exit code of train.py, and all that it said."""
    import small_run

    from mnet_jax.training import command

    given = {**small_run.FIELDS, "schedule.warmup_steps": 1, "eval.every_steps": 4, "checkpoint.every_steps": 1}
    given |= fields
    given.setdefault("data.data_dir", things.digits)
    line = [
        f"--config={config}",
        f"--workdir={workdir}",
        *(f"--config.{path}={value}" for path, value in given.items()),
    ]
    with listening() as heard:
        code = command.main([*line, *flags])
    return code, heard.getvalue()


def mnet(*arguments: object) -> tuple[int, str]:
    """Returns the exit code of a command, and all that it said and wrote."""
    from mnet_jax.commands.cli import main

    wrote = io.StringIO()
    with listening() as heard, contextlib.redirect_stdout(wrote):
        code = main([str(argument) for argument in arguments])
    return code, heard.getvalue() + wrote.getvalue()


def steps(run: pathlib.Path) -> list[int]:
    """Returns the steps whose checkpoints a run has."""
    folder = run / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.exists() else []


def flip(path: pathlib.Path, share: float = 0.5) -> None:
    """Flips one bit of a file, at a share of its length."""
    contents = bytearray(path.read_bytes())
    contents[int(share * (len(contents) - 1))] ^= 16
    path.write_bytes(contents)


def cut(path: pathlib.Path, share: float = 0.5) -> None:
    """Leaves only a share of a file."""
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def tidy(line: str, *places: pathlib.Path) -> str:
    """Returns a line without what differs from one time to the next: places, hashes, processes, dates."""
    for place in places:
        line = line.replace(f"{place}/", "").replace(str(place), ".")
    line = re.sub(r"\b[0-9a-f]{32}\b", "FILE", line)
    line = re.sub(r"process \d+ on \S+ since [\d-]+ [\d:]+", "process 12 on HOST since DATE", line)
    return line.replace("|", "\\|")
