"""How fast `mnet prepare --archives` stores ImageNet, against the rate at which the input path decodes the same photos.

python tests/scripts/prepare_speed.py --photos DIR --rounds 5    # DIR: photos called n########_*.JPEG

In turn, round by round; images a second, and images a second of processor time, which other processes disturb less.
"""

import argparse
import itertools
import pathlib
import statistics
import tempfile
import time

from mnet_jax import schema
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.data.imagenet import facts, forms, strands
from mnet_jax.data.imagenet.store import ImageNet
from mnet_jax.data.shrink import Settings, shrinker


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=3, help="how often each photo is taken a round")
    args = parser.parse_args()
    paths = [str(path) for path in sorted(args.photos.glob("n*.JPEG"))]
    wnids = [pathlib.Path(path).name[:9] for path in paths]
    form = forms.Form(
        "photos",
        {
            "train": [strands.Files(paths * args.copies, wnids * args.copies)],
            "validation": [strands.Files(paths[:1], wnids[:1])],
        },
    )
    facts.SHARDS.update(train=1024 * 8)  # as many files as make reading ahead worth something
    source, count = ImageNet(form), len(paths) * args.copies + 1
    with tempfile.TemporaryDirectory() as place:
        ways = {
            "store as they are": lambda: write(source, Settings(short_side=None), place),
            "store small": lambda: write(source, Settings(), place),
            "decode for training": decoding(form, place, count),
        }
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(args.rounds + 1):  # the first one warms up
            for name, way in ways.items():
                start, busy = time.perf_counter(), time.process_time()
                way()
                rates[name].append((count / (time.perf_counter() - start), count / (time.process_time() - busy)))
    found = {
        name: [statistics.median(values) for values in zip(*all_[1:], strict=True)] for name, all_ in rates.items()
    }
    for name, (wall, busy) in found.items():
        ratios = [value / found["decode for training"][i] for i, value in enumerate((wall, busy))]
        print(f"{name:22}{wall:8,.0f} images/s ({ratios[0]:.2f}){busy:8,.0f} a processor second ({ratios[1]:.2f})")


_SHRINKERS: dict[Settings, object] = {}


def write(source: ImageNet, settings: Settings, place: str) -> None:
    """Stores all photos in a new directory."""
    shrink = _SHRINKERS.setdefault(settings, shrinker(settings))
    source.write(tempfile.mkdtemp(dir=place), shrink, lambda _: None)


def decoding(form: forms.Form, place: str, count: int) -> object:
    """Returns a function that decodes as many photos as the input path does."""
    out = f"{place}/original"
    data = schema.get_config().data
    data.name, data.data_dir = "imagenet2012", out
    original = f"{out}/imagenet2012/{facts.VERSION}"
    pathlib.Path(original).mkdir(parents=True)
    ImageNet(form).write(original, shrinker(Settings(short_side=None)), lambda _: None)
    batches = pipeline.run_stage(Dataset.open(data, {"label": Label()}), "decode", 16)

    def run() -> None:
        for _ in itertools.islice(batches, count // 16):
            pass

    return run


if __name__ == "__main__":
    main()
