"""The place in which the documents' commands run: a copy of the checkout, and what the documents assume to be there.

Stand-ins are small, and lie under the very names that the documents use: photos made of real digits, a TFDS set called
imagenet2012 with generated pictures, weights by rule (`tests/pretrained/random_weights.py`) where a download would be.
Commands are changed by nothing else than these.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]
HUB_NAME = "timm/mobilenetv3_large_100.ra_in1k"
_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Workplace:
    """Directories of one run over the documents; each document gets a fresh `here`."""

    def __init__(self, place: pathlib.Path, *, checkout: bool) -> None:
        """Makes what all documents share; `checkout` False: nothing of the project lies in `here`."""
        self.place, self.checkout = place, checkout
        self.here = place / "mnet_jax" if checkout else place / "empty"
        self.made = place / "made"  # each thing once, for all documents
        self.made.mkdir()
        self.python = pathlib.Path(sys.executable)
        if checkout:
            self.python = _environment_over(place / "venv")
            self.begin(())
            pip = [self.python, "-m", "pip", "install", "-q", "--no-deps", "-e", "."]
            subprocess.run(pip, cwd=self.here, check=True, stderr=subprocess.DEVNULL)
        _save_hub(place / "hub")
        _save_keras(place / "cache" / _keras_name())
        _save_imagenet(place / "tfds")

    def environment(self) -> dict[str, str]:
        """The variables of a command: this Python's programs first; data sets and downloads from this place."""
        place = self.place
        return os.environ | {
            "PATH": os.pathsep.join(
                (str(self.python.parent), str(pathlib.Path(sys.executable).parent), os.environ["PATH"])
            ),
            "TFDS_DATA_DIR": str(place / "tfds"),
            "MNET_CACHE": str(place / "cache"),
            "HF_HOME": str(place / "hub"),
            "HF_HUB_OFFLINE": "1",
        }

    def begin(self, things: tuple[str, ...]) -> None:
        """Empties `here`, copies the checkout into it, and puts in what a document needs."""
        shutil.rmtree(self.here, ignore_errors=True)
        self.here.mkdir()
        if self.checkout:
            _copy_checkout(self.here)
        for name in things:
            self.make(name)
            target = self.here / name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = self.made / name
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    def make(self, name: str) -> None:
        """Makes a thing of `THINGS` under `made`, unless it is there."""
        if not (self.made / name).exists():
            (self.made / name).parent.mkdir(parents=True, exist_ok=True)
            THINGS[name](self)

    def mnet(self, *arguments: str) -> None:
        """Runs a command of ours where things are made."""
        command = [self.python, "-m", "mnet_jax.commands.cli", *arguments]
        done = subprocess.run(
            command, cwd=self.made, env=self.environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")


def _environment_over(path: pathlib.Path) -> pathlib.Path:
    """Returns the Python of a new environment that has all packages of this one, but not this one's editable ones."""
    subprocess.run([sys.executable, "-m", "venv", path], check=True)
    python = path / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    (pathlib.Path(packages) / "below.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _copy_checkout(target: pathlib.Path) -> None:
    """Copies what git knows or would add: no runs, no caches."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


# --- For all documents ---


def _files() -> "object":
    sys.path.insert(0, str(ROOT / "tests" / "pretrained"))
    import files

    return files


def _save_hub(home: pathlib.Path) -> None:
    """Puts a repository into the cache of the hub's client."""
    files = _files()
    from mnet_jax.pretrained.layouts import TIMM

    repository = home / "hub" / f"models--{HUB_NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / _COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_COMMIT)
    arrays = files.library_arrays(TIMM, "v3_large", 1.0, num_classes=1000)
    files.save_safetensors(snapshot / "model.safetensors", arrays, architecture="mobilenetv3_large_100")


def _keras_name() -> str:
    """Returns the name under which a download of these weights is kept."""
    from mnet_jax.pretrained import sources

    return sources.look_up("keras/mobilenet_0.25_224").file


def _save_keras(path: pathlib.Path) -> None:
    """Writes weights of v1 x0.25 as Keras does; downloads are looked for under this name first."""
    files = _files()
    from mnet_jax.pretrained.layouts import KERAS

    path.parent.mkdir(parents=True, exist_ok=True)
    files.save_keras(path, files.library_arrays(KERAS, "v1", 0.25, num_classes=1000))


def _save_imagenet(data_dir: pathlib.Path) -> None:
    """Writes a TFDS set with ImageNet's name, classes and splits: 256 and 48 generated pictures."""
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    import sample_sets

    splits = {"train": sample_sets.numbered(256), "validation": sample_sets.numbered(48, first=1000)}
    sample_sets.write_set(data_dir, "imagenet2012", splits, num_classes=1000)


# --- By name ---


def _photos(work: Workplace) -> None:
    """Draws three classes of sixteen photos: real handwritten digits in colour, each another size."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits, rng = load_digits(), np.random.default_rng(0)
    for digit, name in enumerate(("zero", "one", "two")):
        folder = work.made / "photos" / name
        folder.mkdir(parents=True)
        for number, row in enumerate(np.flatnonzero(digits.target == digit)[:16]):
            grey = Image.fromarray((digits.images[row] * 15).astype(np.uint8))
            side = 96 + 8 * (number % 5)
            pixels = np.asarray(grey.resize((side, side), Image.Resampling.BICUBIC))[..., None] * rng.uniform(0.4, 1, 3)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.jpg")


def _photo(work: Workplace) -> None:
    work.make("photos")
    shutil.copy(work.made / "photos" / "one" / "03.jpg", work.made / "photo.jpg")


def _weights_directory(name: str) -> Callable[[Workplace], None]:
    """A directory with timm's two files: where a document says SOURCE or NAME, any weights may stand."""

    def make(work: Workplace) -> None:
        files = _files()
        from mnet_jax.pretrained.layouts import TIMM

        (work.made / name).mkdir()
        arrays = files.library_arrays(TIMM, "v4_conv_small", 0.35, num_classes=10)
        architecture = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 10}
        files.save_safetensors(work.made / name / "model.safetensors", arrays, **architecture)

    return make


def _keras_file(name: str) -> Callable[[Workplace], None]:
    return lambda work: _save_keras(work.made / name)


def _digits(work: Workplace) -> None:
    """Takes the quickstart's run where .ci/run has just made it; else trains it."""
    if (ROOT / "runs" / "digits" / "curves.png").exists():
        shutil.copytree(ROOT / "runs" / "digits", work.made / "runs" / "digits")
    else:
        work.mnet("train")


def _finetune(work: Workplace) -> None:
    for name in ("photos", "SOURCE"):
        work.make(name)
    work.mnet("train", "--config", "finetune", "--config.data.folder=photos", "--config.init.weights=SOURCE")


def _run(work: Workplace) -> None:
    work.make("runs/finetune")
    shutil.copytree(work.made / "runs" / "finetune", work.made / "RUN")


def _v3_large(work: Workplace) -> None:
    """Trains a narrow V3-Small, which compiles sooner, for two steps on the set that stands for ImageNet."""
    model = ("--config.model.name=v3_small", "--config.model.width=0.35", "--config.augment.randaugment_layers=0")
    sizes = ("--config.data.image_size=64", "--config.train.batch_size=32")
    steps = ("--config.train.num_epochs=None", "--config.train.num_steps=2", "--config.eval.batch_size=48")
    warmup = ("--config.schedule.warmup_epochs=None", "--config.schedule.warmup_steps=1")
    work.mnet("train", "--config", "v3_large", *model, *sizes, *steps, *warmup)


def _own_config(work: Workplace) -> None:
    """Writes the config of one's own that the README describes: it starts from the schema's."""
    (work.made / "my_run.py").write_text("""from mnet_jax import schema


def get_config():
    config = schema.get_config()
    config.model.name, config.model.width = "v1", 0.25
    config.data.name, config.data.image_size, config.data.crop = "digits", 32, "pad"
    config.train.batch_size, config.train.num_steps = 32, 12
    return config
""")


# What a document may assume: name in its directory -> how it is made under `Workplace.made`.
THINGS: dict[str, Callable[[Workplace], None]] = {
    "photos": _photos,
    "photo.jpg": _photo,
    "my_run.py": _own_config,
    "SOURCE": _weights_directory("SOURCE"),
    "NAME": _weights_directory("NAME"),
    "keras_v1_0.25_224.h5": _keras_file("keras_v1_0.25_224.h5"),
    "DIR": lambda work: shutil.copytree(work.place / "tfds", work.made / "DIR"),
    "runs/digits": _digits,
    "runs/finetune": _finetune,
    "runs/v3_large": _v3_large,
    "RUN": _run,
}
