"""`mnet prepare`: gets a data set ready, with small images for several times the speed of input. See docs/input.md."""

import argparse
import dataclasses
import json
import sys
from typing import TextIO

_SHOWN = 5  # bad images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which set, where to, and how small."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="NAME", help="a TFDS set, such as imagenet2012; downloaded if it is not there")
    what.add_argument("--folder", metavar="DIR", help="photos/<class>/... or photos/train/<class>/...")
    parser.add_argument(
        "--archives",
        metavar="DIR",
        help="imagenet2012: what you have of it: the two archives of image-net.org, unpacked, Parquet or WebDataset",
    )
    parser.add_argument("--data_dir", metavar="DIR", help="the TFDS directory (default: as for train.py)")
    parser.add_argument("--out", metavar="DIR", help="a new TFDS directory, local or gs://, or the new folder")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--short_side", type=int, default=256, metavar="PIXELS", help="larger images are shrunk to this (default: 256)"
    )
    size.add_argument("--original", action="store_true", help="store the images as they are")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs, 1 to 100 (default: 90)")
    parser.add_argument("--interpolation", default="bilinear", help="bilinear or bicubic (default: bilinear)")
    check = parser.add_mutually_exclusive_group()
    check.add_argument("--md5", action="store_true", help="read the archives once before, and compare their checksums")
    check.add_argument("--any_size", action="store_true", help="take archives that are not of the published size")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Prepares and says what was saved; 1 if images had to be left out."""
    import tqdm

    if args.archives and args.data != "imagenet2012":
        raise ValueError("--archives goes with --data imagenet2012")
    if not args.out and (args.archives or args.folder):
        raise ValueError("--out is missing: give a new directory, such as --out prepared")
    from mnet_jax import schema
    from mnet_jax.data import prepare, shrink
    from mnet_jax.data.imagenet import archives

    data = schema.get_config().data
    data.name, data.data_dir, data.folder = args.data or "folder", args.data_dir, args.folder or args.archives
    settings = shrink.Settings(None if args.original else args.short_side, args.quality, args.interpolation)
    if args.archives and not args.any_size:
        with tqdm.tqdm(unit="B", unit_scale=True, file=sys.stderr, disable=None if args.md5 else True) as bar:
            archives.check(args.archives, md5=args.md5, start=bar.reset, progress=bar.update)
    bar = tqdm.tqdm(unit=" images", file=sys.stderr, disable=None, dynamic_ncols=True, smoothing=0.05)

    def announce(estimate: prepare.Estimate) -> None:
        free = "" if estimate.bytes_free is None else f"; {_size(estimate.bytes_free)} are free"
        bar.write(f"mnet: {estimate.images:,} images, about {_size(estimate.bytes_after)}{free}", file=sys.stderr)
        bar.reset(total=estimate.images)

    with bar:
        try:
            made = prepare.prepare(data, args.out, settings, announce=announce, progress=bar.update)
        except KeyboardInterrupt:
            bar.write("mnet: stopped; the same command goes on from here", file=sys.stderr)
            raise
    tally, field = made.tally, made.use
    if args.json:
        result = {"directory": made.directory, "was_there": made.was_there, **dataclasses.asdict(tally), "use": field}
        print(json.dumps(result, indent=2), file=out)
        return 1 if tally.left_out else 0
    print(f"{'already there' if made.was_there else 'saved'}  {made.directory}", file=out)
    unchanged = f", of which {tally.kept:,} were small enough and are unchanged" if tally.kept < tally.images else ""
    print(f"images  {tally.images:,}{unchanged}", file=out)
    if tally.bytes_before:
        print(f"size    {_size(tally.bytes_before)} -> {_size(tally.bytes_after)}", file=out)
    if tally.left_out:
        some = [f"{name} ({why})" for name, why in list(tally.left_out.items())[:_SHOWN]]
        more = [f"and {len(tally.left_out) - _SHOWN} more"] if len(tally.left_out) > _SHOWN else []
        print(f"left out {len(tally.left_out)} images: {', '.join(some + more)}", file=out)
    print(f"next    python train.py ... {field}", file=out)
    return 1 if tally.left_out else 0


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
