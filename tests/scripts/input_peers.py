"""Input pipelines in turn: full-size JPEGs in TFRecords -> 224 px training batches on the device, images/s.

    pip install simplejpeg
    python tests/scripts/input_peers.py --photos DIR              # any folder of JPEGs
    python tests/scripts/input_peers.py --photos DIR --megapixels 12   # the same, enlarged to a phone's photos

The photos are stored once as a TFDS set (every one `--copies` times). Then, `--rounds` times, each contender in turn
works through the same number of images; what it has ready from before is thrown away first. Ratios are medians over the
rounds, each within its round, because a shared machine's speed drifts. All have `--cores` threads or workers.

    decode          libjpeg-turbo alone: whole images, RGB, in memory, two threads (simplejpeg); nothing else
    decode fast     the same with the fast transform and plain upsampling
    tfds            what Flax's ImageNet example describes: random crop by sample_distorted_bounding_box, bicubic,
                    flip, normalised float32 on the host
    torchvision     ImageFolder, RandomResizedCrop, flip, normalised float32, one worker process a core
    mnet            this project, streamed from the TFRecords
    mnet prepared   this project on what `mnet prepare` made of the set
"""

import argparse
import concurrent.futures
import io
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path[:0] = [str(pathlib.Path(__file__).parents[2]), str(pathlib.Path(__file__).parents[1] / "data")]

SIZE = 224
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Batches thrown away before each measurement: more than a contender prepares ahead.
DRAIN = {"decode": 1, "decode fast": 1, "tfds": 20, "torchvision": 6}  # mnet: 8


def main() -> None:
    """Runs the comparison and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path, required=True)
    parser.add_argument("--megapixels", type=float, help="enlarge each photo to this size first")
    parser.add_argument("--limit", type=int, help="use the first N photos only")
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--work", type=pathlib.Path, help="where the sets are kept (default: a temporary directory)")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_batches", type=int, default=16, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", nargs="*", help="names of contenders")
    parser.add_argument("--torch_python", help="a Python with torch and torchvision, for the contender `torchvision`")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.worker:
        serve_torchvision(args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or pathlib.Path(temporary)
        photos = enlarge(args.photos, work, args.megapixels) if args.megapixels else args.photos
        name = f"photos{args.megapixels:g}mp" if args.megapixels else "photos"
        name += f"_{args.limit or 'all'}_{args.copies}"
        if not (work / name).exists():
            store(photos, work, name, args)
        contenders: dict[str, Callable[[], Iterator]] = {}
        if args.torch_python:
            contenders["torchvision"] = lambda: TorchvisionLoader(photos, args)
        contenders |= {
            "decode": lambda: decode_alone(photos, args),
            "decode fast": lambda: decode_alone(photos, args, fastdct=True, fastupsample=True),
            "tfds": lambda: plain_tfds(work, name, args),
            "mnet": lambda: ours(work, name, args),
        }
        if (work / "prepared" / name).exists() or not args.only or "mnet prepared" in args.only:
            prepare(work, name)
            contenders["mnet prepared"] = lambda: ours(work / "prepared", name, args)
        if args.only:
            contenders = {key: value for key, value in contenders.items() if key in args.only}
        report(compare(contenders, args), args)


def compare(contenders: dict[str, Callable[[], Iterator]], args: argparse.Namespace) -> dict[str, list[float]]:
    """Images/s of each contender in each round."""
    running = {name: make() for name, make in contenders.items()}
    speeds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(args.rounds):
        for name, batches in running.items():
            settle()
            for _ in itertools.islice(batches, DRAIN.get(name, 8)):
                pass
            start = time.perf_counter()
            for _ in itertools.islice(batches, args.num_batches):
                pass
            speeds[name].append(args.num_batches * args.batch_size / (time.perf_counter() - start))
    for batches in running.values():
        if hasattr(batches, "close"):
            batches.close()
    return speeds


def settle() -> None:
    """Waits until the contender before has filled its buffers again, which it does with this one's cores."""
    time.sleep(1.0)
    while True:
        before = time.process_time()
        time.sleep(0.1)
        if time.process_time() - before < 0.01:
            return


def report(speeds: dict[str, list[float]], args: argparse.Namespace) -> None:
    """A table, or JSON."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    bases = [name for name in ("decode", "tfds") if name in medians]
    over = {
        base: {
            name: statistics.median(a / b for a, b in zip(values, speeds[base], strict=True))
            for name, values in speeds.items()
        }
        for base in bases
    }
    if args.json:
        print(json.dumps({"cores": args.cores, "images_per_second": medians, "over": over, "rounds": speeds}))
        return
    print(
        f"{'':16s}{'images/s':>10s}{'a core':>9s}  " + "".join(f"{'over ' + base:>13s}" for base in bases) + "   rounds"
    )
    for name, speed in medians.items():
        ratios = "".join(f"{over[base][name]:>13.2f}" for base in bases)
        rounds = " ".join(f"{value:.0f}" for value in speeds[name])
        print(f"{name:16s}{speed:>10.0f}{speed / args.cores:>9.0f}  {ratios}   {rounds}")


def files_of(photos: pathlib.Path, args: argparse.Namespace) -> list[pathlib.Path]:
    """The photos that take part."""
    suffixes = (".jpg", ".jpeg")
    return sorted(path for path in photos.rglob("*") if path.suffix.lower() in suffixes)[: args.limit]


def enlarge(photos: pathlib.Path, work: pathlib.Path, megapixels: float) -> pathlib.Path:
    """Copies of the photos with so many pixels, quality 90, 4:2:0: what a phone stores."""
    from PIL import Image

    target = work / f"enlarged{megapixels:g}"
    for path in files_of(photos, argparse.Namespace(limit=40)):
        copy = target / path.name
        if not copy.exists():
            target.mkdir(parents=True, exist_ok=True)
            image = Image.open(path).convert("RGB")
            scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
            size = round(image.width * scale), round(image.height * scale)
            image.resize(size, Image.Resampling.BICUBIC).save(copy, quality=90)
    return target


def store(photos: pathlib.Path, work: pathlib.Path, name: str, args: argparse.Namespace) -> None:
    """The photos as a TFDS set of two splits."""
    from sample_sets import write_set

    contents = [path.read_bytes() for path in files_of(photos, args)]
    splits = {
        "train": lambda: ((c, i % 10) for i, c in enumerate(contents * args.copies)),
        "validation": lambda: ((c, i % 10) for i, c in enumerate(contents)),
    }
    write_set(work, name, splits, num_shards=8)


def prepare(work: pathlib.Path, name: str) -> None:
    """`mnet prepare`, once."""
    if not (work / "prepared" / name).exists():
        from mnet_jax.commands import cli

        code = cli.main(["prepare", "--data", name, "--data_dir", str(work), "--out", str(work / "prepared")])
        if code:
            sys.exit(code)


def decode_alone(photos: pathlib.Path, args: argparse.Namespace, **options: bool) -> Iterator[int]:
    """Yields after every batch: libjpeg-turbo in threads, which it lets run in parallel."""
    import simplejpeg

    contents = [path.read_bytes() for path in files_of(photos, args)]

    def several(start: int, stop: int) -> int:
        for i in range(start, stop):
            simplejpeg.decode_jpeg(contents[i % len(contents)], **options)
        return stop - start

    with concurrent.futures.ThreadPoolExecutor(args.cores) as pool:
        for first in itertools.count(0, args.batch_size):
            edges = [first + args.batch_size * part // args.cores for part in range(args.cores + 1)]
            yield sum(pool.map(several, edges[:-1], edges[1:]))


def plain_tfds(work: pathlib.Path, name: str, args: argparse.Namespace) -> Iterator[object]:
    """The pipeline of Flax's ImageNet example, written anew from its description."""
    import jax
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def example(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        contents = features["image"]
        shape = tf.io.extract_jpeg_shape(contents)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.io.decode_and_crop_jpeg(contents, window, channels=3)

        def center() -> tf.Tensor:
            side = tf.cast(SIZE / (SIZE + 32) * tf.cast(tf.reduce_min(shape[:2]), tf.float32), tf.int32)
            start = (shape[:2] - side + 1) // 2
            cut = tf.io.decode_and_crop_jpeg(contents, tf.concat([start, [side, side]], 0), channels=3)
            return tf.image.resize(cut, [SIZE, SIZE], "bicubic")

        failed = tf.reduce_all(shape == tf.shape(image))
        image = tf.cond(failed, center, lambda: tf.image.resize(image, [SIZE, SIZE], "bicubic"))
        image = tf.image.random_flip_left_right(tf.reshape(image, [SIZE, SIZE, 3]))
        return {"image": (image - MEAN) / STD, "label": features["label"]}

    builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=str(work))
    dataset = builder.as_dataset("train", decoders={"image": tfds.decode.SkipDecoding()})
    options = tf.data.Options()
    options.threading.private_threadpool_size = 48
    options.threading.max_intra_op_parallelism = 1
    dataset = dataset.with_options(options).repeat().shuffle(16 * args.batch_size, seed=0)
    dataset = dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.batch(args.batch_size, drop_remainder=True).prefetch(10)

    def placed() -> Iterator[object]:
        for batch in dataset.as_numpy_iterator():
            yield jax.device_put(batch)

    return placed()


def ours(work: pathlib.Path, name: str, args: argparse.Namespace) -> Iterator[object]:
    """This project's training batches on the device, as `training.loop` gets them."""
    from mnet_jax import schema
    from mnet_jax.data import pipeline
    from mnet_jax.data.annotations import Label
    from mnet_jax.data.dataset import Dataset
    from mnet_jax.training.parallel import Devices

    data = schema.get_config().data
    data.name, data.data_dir, data.image_size, data.cache_mb = name, str(work), SIZE, 0
    dataset = Dataset.open(data, {"label": Label()})
    batches = pipeline.train_batches(dataset, batch_size=args.batch_size, seed=0, start_step=0)
    return Devices(1).feed(batches)


class TorchvisionLoader:
    """torchvision in a Python of its own: tells a batch by a line."""

    def __init__(self, photos: pathlib.Path, args: argparse.Namespace):
        command = [args.torch_python, __file__, "--worker", "--photos", str(photos.resolve()), "--cores", args.cores]
        command += ["--batch_size", args.batch_size, "--copies", args.copies]
        command += ["--limit", args.limit] if args.limit else []
        self._process = subprocess.Popen(map(str, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        """Ends it."""
        self._process.stdin.close()
        self._process.wait()


def serve_torchvision(args: argparse.Namespace) -> None:
    """Answers each line of stdin after one more batch."""
    import torch

    library = torch.library.Library("torchvision", "DEF")  # for builds that lack their compiled operations
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ]
    )

    class Photos(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self._contents = [path.read_bytes() for path in files_of(args.photos, args)]

        def __len__(self) -> int:
            return len(self._contents) * 1000

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            image = Image.open(io.BytesIO(self._contents[i % len(self._contents)])).convert("RGB")
            return transform(image), i % 10

    loader = torch.utils.data.DataLoader(
        Photos(), batch_size=args.batch_size, shuffle=True, num_workers=args.cores, drop_last=True
    )
    batches = iter(loader)
    for _ in sys.stdin:
        next(batches)
        print("batch", flush=True)


if __name__ == "__main__":
    main()
