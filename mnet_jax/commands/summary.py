"""`mnet summary`: one architecture block by block, without jax."""

import argparse
import json
from typing import TextIO

from mnet_jax.models import count
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which network to show."""
    parser.add_argument("name", metavar="NAME", help="one of `mnet models`")
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier (default: 1.0)")
    parser.add_argument(
        "--image_size", type=image_size, metavar="PIXELS", help="a number or HEIGHTxWIDTH (default: the model's own)"
    )
    parser.add_argument("--num_classes", type=int, default=1000, help="size of the classifier (default: 1000)")
    parser.add_argument(
        "--width_rule", default="tf", help="how widths are rounded: tf, timm or torchvision (default: tf)"
    )
    parser.add_argument(
        "--stem_stride",
        type=int,
        default=4,
        help="stride after the first two strided layers: 4, or 2 or 1 for small images (default: 4)",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes the blocks; without `--image_size` at the size of the paper."""
    plan = resolve(
        find_spec(args.name),
        num_classes=args.num_classes,
        width=args.width,
        width_rule=args.width_rule,
        stem_stride=args.stem_stride,
    )
    size = plan.image_size if args.image_size is None else args.image_size
    height, wide = (size, size) if isinstance(size, int) else size
    rows, totals = count.summarize(plan, (height, wide))
    if args.json:
        about = {
            "name": args.name,
            "width": args.width,
            "width_rule": args.width_rule,
            "image_size": [height, wide],
            "num_classes": args.num_classes,
            "stem_stride": args.stem_stride,
        }
        print(json.dumps(about | count.as_dict(rows, totals), indent=2), file=out)
        return 0
    print(f"{args.name} x{args.width:g}, {height} x {wide} pixels, {args.num_classes} classes", file=out)
    print(count.format_table(rows, totals), file=out)
    return 0


def image_size(text: str) -> int | tuple[int, int]:
    """Returns the pixels that a command line says: 224 of "224", (160, 192) of "160x192", height first."""
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"must be a number of pixels or HEIGHTxWIDTH, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))
