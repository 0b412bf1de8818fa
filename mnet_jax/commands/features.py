"""`mnet features`: what a network sees in the images of a folder, as arrays with file names."""

import argparse
import io
import json
import pathlib
from typing import TextIO

import numpy as np

from mnet_jax.commands import embedding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which images, where to."""
    embedding.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="where the arrays go")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes the file and says what is in it."""
    path = pathlib.Path(args.out)
    if path.suffix != ".npz":
        raise ValueError(f"--out {args.out}: a name that ends with .npz expected")
    if not path.parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no directory {path.parent}")
    found = embedding.load(args, classes=False)
    file = io.BytesIO()
    np.savez(
        file,
        features=found.values,
        files=found.files,
        splits=found.splits,
        labels=found.labels,
        class_names=np.array(found.class_names),
        model=np.array(found.model),
    )
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(file.getvalue())
    beside.replace(path)
    count, size = found.values.shape
    if args.json:
        result = {"out": str(path), "images": count, "features": size, "classes": list(found.class_names)}
        print(json.dumps(result, indent=2), file=out)
        return 0
    print(f"{path}: features float32 [{count:,}, {size:,}], files, splits, labels, class_names, model", file=out)
    return 0
