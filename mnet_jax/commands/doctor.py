"""`mnet doctor`: what a run, a folder of data or an exported file holds, what is damaged, and what to type."""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TextIO

from mnet_jax.files import lock_owner


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str  # one line
    good: bool = True
    advice: str = ""  # what to type, or what will happen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which directory or file."""
    parser.add_argument("path", metavar="PATH", help="directory of a run (--workdir), a folder of data, or a file")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Writes what was found; returns 1 if anything is damaged or missing."""
    path = pathlib.Path(args.path).expanduser()
    if not path.exists():
        raise ValueError(f"there is no {path}: give the directory of a run, a folder of data or an exported file")
    if any((path / name).exists() for name in ("checkpoints", "config.json", "metrics.jsonl")):
        kind, found = "run", list(_run(path))
    elif path.is_dir() and not (path / "saved_model.pb").exists():
        kind, found = "data", list(_data(path))
    else:
        kind, found = "exported", list(_exported(path))
    good = all(finding.good for finding in found)
    if args.json:
        rows = [dataclasses.asdict(finding) for finding in found]
        print(json.dumps({"path": str(path), "kind": kind, "good": good, "findings": rows}, indent=2), file=out)
        return 0 if good else 1
    for finding in found:
        print(f"{'ok  ' if finding.good else 'BAD '} {finding.what}", file=out)
        if finding.advice:
            print(f"      {finding.advice}", file=out)
    return 0 if good else 1


# --- A run ---


def _run(path: pathlib.Path) -> Iterator[Finding]:
    from mnet_jax.training import checkpoint

    owner = lock_owner(path)
    if owner is not None:
        yield Finding(f"in use: {owner}", advice="what follows may change while it is read")
    whole, steps = [], checkpoint.saved_steps(str(path))
    for step in reversed(steps):
        try:
            found = checkpoint.read_step(str(path), step)
        except (ValueError, OSError) as error:
            yield Finding(f"checkpoint {step}: {error}", good=False)
            continue
        whole.append(found)
        metrics = {name: value for name, value in (found.about["metrics"] or {}).items() if value is not None}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()) or "not evaluated"
        checked = "" if "arrays" in found.about else "; of an earlier version, without sums: it cannot be verified"
        yield Finding(f"checkpoint {step}: whole, {len(found.arrays)} arrays; {shown}{checked}")
    yield from _config(path, whole[0].config if whole else None)
    yield from _rows(path / "metrics.jsonl")
    aside = sorted(child.name for child in (path / "damaged").iterdir()) if (path / "damaged").is_dir() else []
    if aside:
        yield Finding(f"set aside earlier, as damaged: {', '.join(aside)}", advice=f"rm -r {path / 'damaged'}")
    if whole:
        lost = [step for step in steps if step > whole[0].step]
        advice = f"the same train command goes on from step {whole[0].step}"
        advice += f" and trains {max(lost) - whole[0].step} steps again" if lost else ""
        yield Finding(f"newest whole checkpoint: step {whole[0].step}", advice=advice)
    elif steps:
        advice = f"begin anew with another --workdir, or remove {path / 'checkpoints'}"
        yield Finding("no checkpoint is whole: there is nothing to go on from", good=False, advice=advice)
    else:
        yield Finding("no checkpoint yet", advice="the same train command begins at step 0")


def _config(path: pathlib.Path, saved: object) -> Iterator[Finding]:
    from mnet_jax.config import from_json

    file = path / "config.json"
    advice = "the same train command restores it from a checkpoint" if saved is not None else "it is written anew"
    if not file.exists():
        yield Finding(f"{file} is missing", good=False, advice=advice)
        return
    try:
        config = from_json(file.read_text())
    except (ValueError, TypeError, AttributeError, KeyError):
        yield Finding(f"{file} is damaged", good=False, advice=advice)
        return
    yield Finding(f"config.json: {config.model.name} x{config.model.width:g} on {config.data.name}")


def _rows(file: pathlib.Path) -> Iterator[Finding]:
    from mnet_jax.training.reporting.run_files import read_rows

    if not file.exists():
        yield Finding(f"{file} is missing", good=False, advice="it begins again at the next start; no weight needs it")
        return
    rows, lines = read_rows(file), sum(bool(line.strip()) for line in file.read_bytes().split(b"\n"))
    if len(rows) < lines:
        advice = "they are left out at the next start"
        yield Finding(f"{file}: {lines - len(rows)} of {lines} lines are no rows", good=False, advice=advice)
    else:
        yield Finding(f"metrics.jsonl: {len(rows)} rows, up to step {max((row['step'] for row in rows), default=0)}")


# --- Data, exported files ---


def _data(path: pathlib.Path) -> Iterator[Finding]:
    """Looks at whatever data there are: prepared TFDS sets, images with boxes, with masks, or in folders of classes."""
    prepared = sorted(file.parent for file in path.glob("**/dataset_info.json"))
    try:
        if prepared:
            for directory in prepared:
                yield from _records(directory)
        else:
            yield from _folder(path)
    except ValueError as error:
        yield Finding(str(error), good=False)


def _records(directory: pathlib.Path) -> Iterator[Finding]:
    """Reads every record of a prepared set, with its sums."""
    from mnet_jax.data import tfds_set

    for name, count, fault in tfds_set.faults(str(directory)):
        if fault is None:
            yield Finding(f"{name}: {count:,} records")
        else:
            yield Finding(f"{name}: {fault}", good=False, advice="prepare the data set again")


def _folder(path: pathlib.Path) -> Iterator[Finding]:
    from mnet_jax.data import folder
    from mnet_jax.data.boxes import folder as boxes
    from mnet_jax.data.boxes.found import Tree
    from mnet_jax.data.masks import folder as masks
    from mnet_jax.data.masks import pairs

    root, tree, what = str(path), Tree(str(path)), "images"
    if pairs.find(tree) is not None:
        listing, what = masks.scan(root), "images with masks"
    elif any(reader.read(tree) is not None for reader in boxes.READERS):
        listing, what = boxes.scan(root), "images with boxes"
    else:
        listing = folder.scan(root) if folder.has_classes(root) else folder.scan_unsorted(root)
    classes = f" in {len(listing.class_names)} classes" if listing.class_names else ""
    for split, files in listing.splits.items():
        yield Finding(f"{split}: {len(files):,} {what}{classes}")
    for file in listing.left_out:
        yield Finding(f"{file.path}: {file.why}", good=False, advice="it is left out, and listed in left_out.csv")


def _exported(path: pathlib.Path) -> Iterator[Finding]:
    import numpy as np

    from mnet_jax.deploy import formats

    kind = formats.recognize(path)
    try:
        model = formats.load(path)
        height, width = model.about.image_size
        result = model(np.zeros((1, height, width, 3), np.uint8))
    except Exception as error:  # each runtime has errors of its own
        if isinstance(error, ValueError) and "pip install" in str(error):
            raise
        said = " ".join(str(error).split())[:300] or type(error).__name__
        what = said if said.startswith(str(path)) else f"{path} ({kind}) cannot be run: {said}"
        yield Finding(what, good=False, advice="mnet export writes it again")
        return
    arrays = result.values() if isinstance(result, dict) else [result]
    finite = all(np.isfinite(np.asarray(array, np.float64)).all() for array in arrays)
    what = f"{path}: {kind}, {formats.file_size(path):,} bytes, runs on an image of {height}x{width}"
    yield Finding(what if finite else f"{what}, with results that are not finite", good=finite)
