"""`mnet probe`: how well frozen features tell the classes of a folder apart, by a linear probe and by neighbours.

The probe is scikit-learn's logistic regression on standardised features, its penalty chosen by cross-validation on the
training images. The neighbours are those of the highest cosine similarity, each voting with exp(similarity / 0.07) (Wu
et al. 2018, arXiv 1805.01978, section 3.4).
"""

import argparse
import json
import sys
import warnings
from typing import TextIO

import numpy as np

from mnet_jax.commands.features import add_model_and_folder, embed

_TEMPERATURE = 0.07
_AT_ONCE = 1024  # images compared with all of training at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which folder, how many neighbours."""
    add_model_and_folder(parser)
    parser.add_argument(
        "--k", type=int, nargs="+", default=[1, 5, 20], metavar="K", help="numbers of neighbours (default: 1 5 20)"
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Prints a table."""
    if min(args.k) < 1:
        raise ValueError(f"--k {min(args.k)}: at least one neighbour expected")
    found = embed(args, classes=True)
    held_out = next(split for split in dict.fromkeys(found.splits.tolist()) if split != "train")
    train, test = found.of("train"), found.of(held_out)
    sizes = {"train": len(train[1]), held_out: len(test[1])}
    print(f"mnet: {sizes['train']:,} images to learn from, {sizes[held_out]:,} to judge by", file=sys.stderr)
    share, penalty = linear_probe(*train, *test)
    near = dict(zip(args.k, neighbours(*train, *test, args.k, len(found.class_names)), strict=True))
    if args.json:
        result = {
            "model": found.model,
            "folder": args.folder,
            "images": sizes,
            "classes": list(found.class_names),
            "linear_probe": {"top1": share, "C": penalty},
            "neighbours": {str(count): top1 for count, top1 in near.items()},
        }
        print(json.dumps(result, indent=2), file=out)
        return 0
    print(f"{'on frozen features':<20}  top-1 of {sizes[held_out]:,} images", file=out)
    for name, top1 in [("linear probe", share), *((f"{count} nearest", top1) for count, top1 in near.items())]:
        print(f"{name:<20}  {100 * top1:6.2f} %", file=out)
    return 0


def linear_probe(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray
) -> tuple[float, float]:
    """(accuracy on the test images, scikit-learn's C), of features float32 [N, F] and their labels int32 [N]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def probe(penalty: float) -> object:
        return make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=300))

    penalties = [10.0**power for power in range(-5, 1)]
    folds = min(5, int(np.bincount(labels)[np.unique(labels)].min()))
    best = 1e-2  # a class of one image leaves nothing to cross-validate
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that weak penalties had not converged after 300 steps
        if folds > 1:
            splitter = StratifiedKFold(folds, shuffle=True, random_state=0)
            scores = [
                cross_val_score(probe(penalty), features, labels, cv=splitter, scoring="neg_log_loss").mean()
                for penalty in penalties
            ]
            best = penalties[int(np.argmax(scores))]
        return float(probe(best).fit(features, labels).score(test_features, test_labels)), best


def neighbours(
    features: np.ndarray,
    labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    counts: list[int],
    num_classes: int,
) -> list[float]:
    """Accuracy on the test images for each number of neighbours."""

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)

    known, most = unit(features), min(max(counts), len(features))
    correct = dict.fromkeys(counts, 0)
    for start in range(0, len(test_features), _AT_ONCE):
        similarity = unit(test_features[start : start + _AT_ONCE]) @ known.T
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        weights = np.exp((np.take_along_axis(similarity, nearest, 1) - 1) / _TEMPERATURE)
        votes = weights[..., None] * (labels[nearest][..., None] == np.arange(num_classes))
        for count in counts:
            guess = votes[:, :count].sum(1).argmax(1)
            correct[count] += int((guess == test_labels[start : start + _AT_ONCE]).sum())
    return [correct[count] / len(test_labels) for count in counts]
