"""`mnet verify-export`: an exported file in its own runtime against the JAX model that it was made from, on images."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from mnet_jax.commands import arguments

if TYPE_CHECKING:
    import jax

    from mnet_jax.deploy.metadata import About
    from mnet_jax.trained import Trained

_BATCH = 32
_SECONDS, _WARMUP = 1.0, 3  # of each latency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, which model it should be, and on which images."""
    parser.add_argument("file", metavar="FILE", help="what mnet export wrote")
    arguments.add_model(parser)
    arguments.add_data(parser)
    parser.add_argument("--num_images", type=int, metavar="N", help="the first N images (default: the whole split)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Runs both over the images and reports; the exit code does not judge."""
    arguments.check_data(args)
    if args.num_images is not None and args.num_images < 1:
        raise ValueError(f"--num_images must be at least 1, got {args.num_images}")

    from mnet_jax.data import pipeline
    from mnet_jax.deploy import formats
    from mnet_jax.runtime import cache_compilations, num_cores

    cache_compilations()
    cores = num_cores()
    exported = formats.load(args.file, threads=cores)
    trained = arguments.load_model(args)
    _check_same_model(args.file, exported.about, trained)
    dataset, _ = arguments.open_data(args, trained, image_size=exported.about.image_size)
    info = dataset.info
    count = min(info.num_eval, args.num_images or info.num_eval)
    print(f"mnet: comparing on {count:,} images of {info.name}, split {info.eval_split}", file=sys.stderr)
    reference = Reference(trained, exported.about)
    comparison = Comparison(exported.about.output)
    for batch in pipeline.eval_batches(dataset, batch_size=min(_BATCH, count)):
        real = min(int(batch["mask"].sum()), count - comparison.num_images)
        images = batch["image"]
        expected = np.asarray(reference(images))[:real]
        found = exported(prepare(images[:real], exported.about))
        comparison.add(expected, found, batch["label"][:real])
        if comparison.num_images == count:
            break

    result = {
        "file": args.file,
        "format": formats.recognize(args.file),
        "quantize": exported.about.quantize,
        "bytes": formats.file_size(args.file),
        "model": trained.path,
        "data": info.name,
        "split": info.eval_split,
        **comparison.result(),
        "latency_ms": latencies(args.file, exported.about, reference, cores),
    }
    if args.json:
        print(json.dumps(result, indent=2), file=out)
        return 0
    _print(result, out)
    return 0


class Reference:
    """The JAX model, unfolded: uint8 images [N, H, W, 3] -> scores float32 [N, classes] as the file gives them."""

    def __init__(self, trained: "Trained", about: "About"):
        import jax

        from mnet_jax.trained import build_model, build_task

        model, task = build_model(trained.config, trained.info), build_task(trained.config, trained.info)
        probabilities = about.output == "probabilities"

        @jax.jit
        def scores(variables: Any, images: "jax.Array") -> "jax.Array":
            logits = model.apply(variables, task.eval_inputs({"image": images}), train=False)
            return jax.nn.softmax(logits) if probabilities else logits

        variables = jax.device_put(trained.variables)
        self._scores = lambda images: scores(variables, images)

    def __call__(self, images: np.ndarray) -> "jax.Array":
        return self._scores(images)


def prepare(images: np.ndarray, about: "About") -> np.ndarray:
    """uint8 images -> what the exported model takes."""
    if about.input == "uint8":
        return images
    mean, std = (np.asarray(values, np.float32) for values in (about.mean, about.std))
    return (images - mean) / std


@dataclasses.dataclass
class Comparison:
    """Sums over images of what two models say of them."""

    output: str  # "logits" or "probabilities"
    num_images: int = 0
    _agree: int = 0
    _right: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2, np.int64))
    _max_error: float = 0.0
    _sum_error: float = 0.0
    _max_score: float = 0.0

    def add(self, expected: np.ndarray, found: np.ndarray, labels: np.ndarray) -> None:
        """Scores [N, classes] of the model and of the file, and the true classes [N]."""
        ours, theirs = expected.argmax(1), found.argmax(1)
        self.num_images += len(labels)
        self._agree += int((ours == theirs).sum())
        self._right += ((ours == labels).sum(), (theirs == labels).sum())
        error = np.abs(found.astype(np.float64) - expected)
        self._max_error = max(self._max_error, float(error.max()))
        self._sum_error += float(error.mean(1).sum())
        self._max_score = max(self._max_score, float(np.abs(expected).max()))

    def result(self) -> dict[str, object]:
        """Shares in 0..1; errors in the scores' own unit, `relative` to the largest score."""
        model, file = (self._right / self.num_images).tolist()
        return {
            "num_images": self.num_images,
            "agreement": self._agree / self.num_images,
            "top1_model": model,
            "top1_file": file,
            "scores": self.output,
            "max_error": self._max_error,
            "mean_error": self._sum_error / self.num_images,
            "max_relative_error": self._max_error / self._max_score,
        }


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


def _print(result: dict[str, Any], out: TextIO) -> None:
    print(f"file       {result['file']} ({result['format']}, {result['bytes'] / 1e6:.2f} MB)", file=out)
    print(f"model      {result['model']}", file=out)
    print(f"images     {result['num_images']:,} of {result['data']}, split {result['split']}", file=out)
    print(f"agreement  {100 * result['agreement']:.2f} % of the images have the same top-1", file=out)
    print(f"top-1      {100 * result['top1_file']:.2f} % file, {100 * result['top1_model']:.2f} % model", file=out)
    print(
        f"error      max {result['max_error']:.3g}, mean {result['mean_error']:.3g} of {result['scores']} "
        f"({result['max_relative_error']:.1e} of the largest)",
        file=out,
    )
    for row in result["latency_ms"]:
        threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
        print(f"latency    {row['median']:.2f} ms an image, {row['runtime']}, {threads}", file=out)
