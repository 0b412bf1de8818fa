"""`mnet verify-export`: an exported file in its own runtime against the JAX model that it was made from, on images."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from mnet_jax.commands import arguments
from mnet_jax.commands.predict import find_images

if TYPE_CHECKING:
    import jax

    from mnet_jax.deploy.metadata import About
    from mnet_jax.tasks.output import Comparison
    from mnet_jax.trained import Trained

_BATCH = 32
_SECONDS, _WARMUP = 1.0, 3  # of each latency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, which model it should be, and on which images."""
    parser.add_argument("file", metavar="FILE", help="what mnet export wrote")
    arguments.add_model(parser)
    arguments.add_data(parser)
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="images without labels instead: files, directories or patterns such as 'photos/*.jpg'",
    )
    parser.add_argument("--num_images", type=int, metavar="N", help="the first N images (default: the whole split)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Runs both over the images and reports; the exit code does not judge."""
    arguments.check_data(args)
    if args.num_images is not None and args.num_images < 1:
        raise ValueError(f"--num_images must be at least 1, got {args.num_images}")
    if args.images and any((args.data, args.folder, args.split)):
        raise ValueError("--images are images without labels: leave --data, --folder and --split out")
    paths = find_images(args.images) if args.images else None

    import jax

    from mnet_jax import tasks
    from mnet_jax.deploy import formats
    from mnet_jax.runtime import cache_compilations, num_cores

    cache_compilations()
    cores = num_cores()
    exported = formats.load(args.file, threads=cores)
    trained = arguments.load_model(args)
    _check_same_model(args.file, exported.about, trained)
    reference = Reference(trained, exported.about)
    name, split, there, batches = _images(args, trained, exported.about, paths)
    count = min(there, args.num_images or there)
    print(f"mnet: comparing on {count:,} images of {_place(name, split)}", file=sys.stderr)
    comparison = tasks.face(exported.about.task, "export").compare(reference.task, exported.about.output)
    for batch in batches:
        real = min(int(batch["mask"].sum()), count - comparison.num_images)
        expected = jax.tree.map(np.asarray, reference(batch["image"]))
        found = exported(prepare(batch["image"][:real], exported.about))
        comparison.add(*(jax.tree.map(lambda values: values[:real], part) for part in (expected, found, batch)))  # noqa: B023
        if comparison.num_images == count:
            break

    result = {
        "file": args.file,
        "format": formats.recognize(args.file),
        "quantize": exported.about.quantize,
        "bytes": formats.file_size(args.file),
        "model": trained.path,
        "data": name,
        "split": split,
        **comparison.result(),
        "latency_ms": latencies(args.file, exported.about, reference, cores),
    }
    if args.json:
        print(json.dumps(result, indent=2), file=out)
        return 0
    _print(result, comparison, out)
    return 0


def _images(
    args: argparse.Namespace, trained: "Trained", about: "About", paths: list[str] | None
) -> "tuple[str, str | None, int, Iterator[dict[str, np.ndarray]]]":
    """Returns (name of the set, its split, how many images it has, batches of them); of `paths`, or of a data set."""
    if paths is not None:
        data = trained.config.data
        return "images", None, len(paths), _photos(paths, about.image_size, data.eval_crop, data.interpolation)
    from mnet_jax.data import pipeline

    dataset, _ = arguments.open_data(args, trained, image_size=about.image_size)
    info = dataset.info
    batch_size = min(_BATCH, info.num_eval, args.num_images or info.num_eval)
    return (
        args.folder or info.name,
        info.eval_split,
        info.num_eval,
        pipeline.eval_batches(dataset, batch_size=batch_size),
    )


def _photos(
    paths: list[str], size: tuple[int, int], eval_crop: float, interpolation: str
) -> "Iterator[dict[str, np.ndarray]]":
    """Yields batches of image uint8 [N, H, W, 3], crop int32 [N, 11] and mask, all of one size."""
    from mnet_jax.data import decode

    rows = min(_BATCH, len(paths))
    for start in range(0, len(paths), rows):
        part = paths[start : start + rows]
        images, crops = np.zeros((rows, *size, 3), np.uint8), np.ones((rows, 11), np.int32)
        for place, path in enumerate(part):
            images[place], crop = decode.eval_crop(decode.load_image(path), size, eval_crop, interpolation)
            crops[place] = crop.row()
        yield {"image": images, "crop": crops, "mask": (np.arange(rows) < len(part)).astype(np.float32)}


def _place(name: str, split: str | None) -> str:
    return name if split is None else f"{name}, split {split}"


class Reference:
    """The JAX model, unfolded: uint8 images [N, H, W, 3] -> the results [N, ...] that the file gives."""

    def __init__(self, trained: "Trained", about: "About"):
        import jax

        from mnet_jax import tasks
        from mnet_jax.deploy.export import with_settings
        from mnet_jax.trained import build_model, task_of

        config = with_settings(trained.config, about.image_size, about.task_settings)
        self.task = task_of(trained, config)
        model, task = build_model(config, trained.info, task=self.task), self.task
        face = tasks.face(config.task.name, "export")

        @jax.jit
        def results(variables: Any, images: "jax.Array") -> Any:
            outputs = model.apply(variables, task.eval_inputs({"image": images}), train=False)
            return face.results(task, outputs, about.output)

        variables = jax.device_put(trained.variables)
        self._results = lambda images: results(variables, images)

    def __call__(self, images: np.ndarray) -> Any:
        return self._results(images)


def prepare(images: np.ndarray, about: "About") -> np.ndarray:
    """uint8 images -> what the exported model takes."""
    if about.input == "uint8":
        return images
    mean, std = (np.asarray(values, np.float32) for values in (about.mean, about.std))
    return (images - mean) / std


def latencies(path: str, about: "About", reference: Callable, cores: int) -> list[dict[str, object]]:
    """Median milliseconds of one image: the file with 1 thread and with all cores, and the JAX model."""
    from mnet_jax.deploy import formats
    from mnet_jax.measuring import clock

    image = np.zeros((1, *about.image_size, 3), np.uint8)
    prepared = prepare(image, about)
    format = formats.recognize(path)
    runs = [(format, threads) for threads in sorted({1, cores})] if formats.takes_threads(format) else [(format, cores)]
    found = []
    for runtime, threads in (*runs, ("jax", cores)):
        if runtime == "jax":
            call = lambda: reference(image)  # noqa: E731
        else:
            runner = formats.load(path, threads=threads)
            call = lambda runner=runner: runner(prepared)  # noqa: E731
        times = clock.spread(clock.timings(call, warmup=_WARMUP, seconds=_SECONDS))
        found.append({"runtime": runtime, "threads": threads, "median": times["median_ms"]})
    return found


def _check_same_model(path: str, about: "About", trained: "Trained") -> None:
    there = trained.config.model
    if (about.model, about.width) != (there.name, there.width) or about.class_names != trained.class_names:
        raise ValueError(
            f"{path} is {about.model} x{about.width:g} with {len(about.class_names)} classes, made from "
            f"{about.source}; {trained.path} is {there.name} x{there.width:g} with {len(trained.class_names)}: "
            "give the model that it was made from"
        )


def _print(result: dict[str, Any], comparison: "Comparison", out: TextIO) -> None:
    print(f"file       {result['file']} ({result['format']}, {result['bytes'] / 1e6:.2f} MB)", file=out)
    print(f"model      {result['model']}", file=out)
    print(f"images     {result['num_images']:,} of {_place(result['data'], result['split'])}", file=out)
    print("\n".join(comparison.lines()), file=out)
    for row in result["latency_ms"]:
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        print(f"latency    {row['median']:.2f} ms an image, {row['runtime']}, {threads}", file=out)
