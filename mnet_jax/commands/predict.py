"""`mnet predict`: what a model says of images, many at a time through one compiled call."""

import argparse
import glob
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import TextIO

import numpy as np

from mnet_jax import files
from mnet_jax.commands import arguments

_BATCH_SIZE = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and which images."""
    arguments.add_model(parser)
    arguments.add_batch_size(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, directories or patterns such as 'photos/*.jpg'"
    )
    parser.add_argument("--top", type=int, default=5, metavar="K", help="results to show of each image (default: 5)")
    parser.add_argument("--draw", metavar="DIR", help="write each image with its results as DIR/NAME.png")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Predicts and writes to `out`; returns 1 if an image could not be read."""
    if args.top < 1:
        raise ValueError(f"--top must be at least 1, got {args.top}")
    paths = find_images(args.images)
    if args.draw:
        pathlib.Path(args.draw).mkdir(parents=True, exist_ok=True)

    import jax

    from mnet_jax import config as configs
    from mnet_jax import tasks
    from mnet_jax.data import decode
    from mnet_jax.runtime import cache_compilations, keep_memory
    from mnet_jax.trained import build_model, task_of

    keep_memory()
    cache_compilations()
    trained = arguments.load_model(args)
    data, face = trained.config.data, tasks.face(trained.config.task.name, "predict")
    task = task_of(trained)
    model = build_model(trained.config, trained.info, task=task)
    image_size = configs.image_size(data)

    @jax.jit
    def select(pixels: jax.Array) -> dict[str, jax.Array]:
        """Returns what people read of the outputs for images uint8 [N, H, W, 3], [N, ...] each."""
        return face.select(task, model.apply(variables, task.eval_inputs({"image": pixels}), train=False), args.top)

    variables = jax.device_put(trained.variables)
    size = min(args.batch_size or _BATCH_SIZE, len(paths))
    results, failed, taken = [], False, set()
    for part in _parts(paths, size):
        pixels = np.zeros((size, *image_size, 3), np.uint8)  # of one shape always: one compilation
        crops, errors = {}, {}
        for place, path in enumerate(part):
            try:
                image = decode.load_image(path)
                pixels[place], crops[place] = decode.eval_crop(image, image_size, data.eval_crop, data.interpolation)
            except (ValueError, OSError) as error:
                errors[place] = " ".join(str(error).split())
        if len(errors) < len(part):
            selected = jax.tree.map(np.asarray, select(pixels))
        for place, path in enumerate(part):
            if place in errors:
                failed = True
                files.tell(errors[place])
                results.append({"image": path, "error": errors[place]})
                continue
            ours = jax.tree.map(lambda values, place=place: values[place], selected)
            described = face.describe(ours, trained.info, crops[place])
            results.append({"image": path, **described})
            if args.draw:
                picture = face.draw(decode.load_image(path), described)
                drawn = pathlib.Path(args.draw, _own_name(path, taken))
                files.write_whole(drawn, picture)
                for ending, contents in getattr(face, "more_files", lambda _: {})(described).items():
                    files.write_whole(drawn.with_name(drawn.stem + ending), contents)
            if not args.json:
                print("\n".join([path, *(f"  {line}" for line in face.lines(described))]), file=out)
        out.flush()
    if args.json:
        print(json.dumps({"checkpoint": trained.path, "step": trained.step, "images": results}, indent=2), file=out)
    return 1 if failed else 0


def _own_name(path: str, taken: set[str]) -> str:
    """Returns a name for an image's picture; images of one name in two folders are told apart by a number."""
    stem, number = pathlib.Path(path).stem, 1
    name = f"{stem}.png"
    while name in taken:
        number += 1
        name = f"{stem}_{number}.png"
    taken.add(name)
    return name


def find_images(arguments: Sequence[str]) -> list[str]:
    """Files for the arguments: a directory gives the images in it and below, as training does, a pattern its matches.

    A file that does not exist stays in the list: its error is told in its turn, and does not stop the others.
    """
    found = []
    for argument in arguments:
        path = pathlib.Path(argument)
        if path.is_dir():
            inside = _images_below(str(path))
            if not inside:
                raise ValueError(f"no images in {argument}")
            found += inside
        elif not path.exists() and glob.has_magic(argument):
            matches = sorted(file for file in glob.glob(argument, recursive=True) if pathlib.Path(file).is_file())
            if not matches:
                raise ValueError(f"no file matches {argument!r}")
            found += matches
        else:
            found.append(argument)
    return found


def _images_below(folder: str) -> list[str]:
    """Returns the files below a folder that are not hidden and begin as an image does, whatever their names."""
    from mnet_jax.data import formats

    images, others = formats.images_below(folder)
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        files.tell(f"{folder}: left out, no images: {', '.join(others[:3])}{more}")
    return images


def _parts(paths: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]
