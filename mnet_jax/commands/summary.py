"""`mnet summary`: one network block by block, without jax where it is named."""

import argparse
import json
from collections.abc import Sequence
from typing import TextIO

from mnet_jax.commands import arguments
from mnet_jax.models import count
from mnet_jax.models.heads.mask_tables import SegmenterSpec, resolve_segmenter
from mnet_jax.models.heads.networks import find_network
from mnet_jax.models.heads.tables import DetectorSpec, resolve_detector
from mnet_jax.models.plans import LayerPlan, ModelPlan, Size
from mnet_jax.models.resolve import resolve

Placed = Sequence[tuple[LayerPlan, Size]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which network to show."""
    arguments.add_network(parser)
    parser.add_argument(
        "--image_size", type=image_size, metavar="PIXELS", help="a number or HEIGHTxWIDTH (default: the model's own)"
    )
    parser.add_argument("--width_rule", help="how widths are rounded: tf, timm or torchvision (default: tf)")
    parser.add_argument(
        "--stem_stride",
        type=int,
        help="stride after the first two strided layers: 4, or 2 or 1 for small images (default: 4)",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes the blocks; without `--image_size` at the size of the paper, of the named pair, or of the config."""
    arguments.check_network(args, "width", "num_classes", "width_rule", "stem_stride")
    if args.config is not None:
        name, plan, layers, size, num_classes = _of_config(args)
    else:
        name, plan, layers, size, num_classes = _of_name(args)
    rows, totals = count.summarize(plan, size, layers)
    if args.json:
        about = {
            "name": name,
            "width": plan.width,
            "width_rule": plan.width_rule,
            "image_size": list(size),
            "num_classes": num_classes,
            "stem_stride": plan.stem_stride,
        }
        print(json.dumps(about | count.as_dict(rows, totals), indent=2), file=out)
        return 0
    print(f"{name} x{plan.width:g}, {size[0]} x {size[1]} pixels, {num_classes} classes", file=out)
    print(count.format_table(rows, totals), file=out)
    return 0


def _of_name(args: argparse.Namespace) -> tuple[str, ModelPlan, Placed, Size, int]:
    """Returns name, backbone, the layers of a task on it, image size and number of classes of `MODEL`."""
    spec = find_network(args.model)
    num_classes = args.num_classes
    if isinstance(spec, DetectorSpec | SegmenterSpec):
        for name in ("width_rule", "stem_stride"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name} is not asked of a detector or a segmenter: {args.model} has its own")
        usual, resolve_it = (90, resolve_detector) if isinstance(spec, DetectorSpec) else (21, resolve_segmenter)
        num_classes = usual if num_classes is None else num_classes
        plan, head = resolve_it(spec, num_classes, width=args.width)
        size = _sides(args.image_size or spec.image_size)
        return args.model, plan, head.placed(size), size, num_classes
    num_classes = 1000 if num_classes is None else num_classes
    plan = resolve(
        spec,
        num_classes=num_classes,
        width=1.0 if args.width is None else args.width,
        width_rule=args.width_rule or "tf",
        stem_stride=4 if args.stem_stride is None else args.stem_stride,
    )
    return args.model, plan, (), _sides(args.image_size or plan.image_size), num_classes


def _of_config(args: argparse.Namespace) -> tuple[str, ModelPlan, Placed, Size, int]:
    """Returns the same of the network that a config trains."""
    from mnet_jax import config as configs
    from mnet_jax.trained import build_model

    config = configs.load(args.config, args.overrides)
    if args.image_size is not None:
        configs.set_field(config, "data.image_size", args.image_size)
    configs.validate(config)
    info, size = arguments.describe_data(config), configs.image_size(config.data)
    network = build_model(config, info)
    return config.model.name, network.plan, network.head_layers(size), size, info.num_classes


def image_size(text: str) -> int | tuple[int, int]:
    """Returns the pixels that a command line says: 224 of "224", (160, 192) of "160x192", height first."""
    parts = text.lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise argparse.ArgumentTypeError(f"must be a number of pixels or HEIGHTxWIDTH, got {text!r}")
    return int(parts[0]) if len(parts) == 1 else (int(parts[0]), int(parts[1]))


def _sides(size: int | tuple[int, int]) -> Size:
    return (size, size) if isinstance(size, int) else size
