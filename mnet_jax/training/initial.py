"""Where a run's weights come from.

In this order, and nowhere else:
  1. the latest checkpoint of this run (`<workdir>/checkpoints`): the run goes on;
  2. `init.checkpoint`, a checkpoint of another run: fine-tuning, the classifier fresh where the classes differ;
  3. `init.weights`, published weights: the same;
  4. fresh weights from the seed.
"""

import itertools
import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.variables import initial_variables
from mnet_jax.tasks.task import Task
from mnet_jax.trained import Trained
from mnet_jax.training import checkpoint
from mnet_jax.training.state import Tree

RANGE = "_range"  # how the names of the ranges of quantised training end (models/variables.py)


def find_source(config: ml_collections.ConfigDict) -> Trained | None:
    """Returns the model that a run without a checkpoint of its own starts from; None if it starts fresh.

    Raises:
      ValueError: if there is no such checkpoint, or no such weights.
    """
    if config.init.checkpoint is not None:
        return checkpoint.load(config.init.checkpoint, ema=config.init.ema)
    if config.init.weights is not None:
        from mnet_jax.pretrained.load import load_pretrained

        return load_pretrained(config.init.weights, ema=config.init.ema)
    return None


def fill_in(
    config: ml_collections.ConfigDict, source: Trained | None, own: ml_collections.ConfigDict | None
) -> ml_collections.ConfigDict:
    """Returns the config with what it leaves to its checkpoint: the model and how its images are prepared.

    Image size, crop and interpolation of the evaluation where they are None; where `model.name` is None, the
    architecture (not the dropout), and pixel statistics where those are None too; where `task.head` is None and the
    source has learned the same task, its head. All are the source's, or those of `own`, which this run itself saved at
    its first start.
    """
    whole = config.model.name is None
    prepared = [name for name in ("image_size", "eval_crop", "interpolation") if config.data[name] is None]
    theirs = own if source is None else source.config
    headless = theirs is not None and config.task.head is None and theirs.task.name == config.task.name
    if not whole and not prepared and not headless:
        return config
    config = config.copy_and_resolve_references()
    if headless:
        for name in ("head", "min_scale", "output_stride"):
            if config.task[name] is None:
                config.task[name] = theirs.task[name]
    for name in prepared:
        config.data[name] = theirs.data[name]
    if whole:
        for name in ("name", "width", "width_rule", "padding", "stem_stride", "norm_epsilon"):
            config.model[name] = theirs.model[name]
        for name in ("mean", "std"):
            if config.data[name] is None:
                own = None if source is None else getattr(source.info, name)
                config.data[name] = theirs.data[name] or own
    return config


def first_variables(
    config: ml_collections.ConfigDict,
    network: nn.Module,
    task: Task,
    info: DatasetInfo,
    source: Trained | None,
    log: Callable[[str], None],
) -> Tree:
    """Returns the variables before the first step: fresh ones from the seed, on which those of the source are laid.

    The task's own layers stay fresh where the source has other classes or another task; so does what "no top" weights
    lack above the backbone.
    """
    fresh = initial_variables(network.list_variables(), config.seed)
    if source is None:
        return fresh
    ours, theirs = fresh["params"], source.variables["params"]
    if source.config.task.name != config.task.name:  # a backbone for another head: layers are on one side only
        skip = [*task.own_scopes, *(scope for scope in theirs if scope not in ours)]
    elif not source.has_head:
        skip = [scope for scope in ("head", *task.own_scopes) if scope not in theirs]
    else:
        skip = [] if source.same_classes(info) else list(task.class_scopes)
    if "head" in skip and "head" in ours and config.train.freeze != "none":
        raise ValueError(
            f"{source.path} lacks the layer 'head' before the classifier, which would stay random in a frozen "
            "backbone: set --config.train.freeze=none --config.train.embedding_views=0, or take weights that have it"
        )
    return transplant(fresh, source.variables, skip=skip, log=log, origin=source.path)


def transplant(fresh: Tree, source: Tree, *, skip: Sequence[str], log: Callable[[str], None], origin: str) -> Tree:
    """Returns `fresh` with every value of `source`, except those of the scopes `skip`.

    Args:
      fresh: `{"params", "batch_stats"}` of the model that is about to be trained.
      source: the same of a trained model. Ranges of quantised training may be on one side only.
      skip: scopes that stay fresh: the classifier where the classes differ, and what "no top" weights lack.
      log: is told what was restored and what was skipped, and why.
      origin: what to call the source in messages.

    Raises:
      ValueError: if anything else differs; lists what is missing, left over or of another shape.
    """
    ours, theirs = flat(fresh), flat(source)
    theirs = {name: value for name, value in theirs.items() if name in ours or not name.endswith(RANGE)}
    unseen = {name for name in ours.keys() - theirs.keys() if name.endswith(RANGE)}
    skipped = {name for name in ours if name.split("/")[1] in skip} - unseen
    rest = {name for name in theirs if name.split("/")[1] not in skip}
    problems = [f"missing there: {name} {ours[name].shape}" for name in sorted(ours.keys() - rest - skipped - unseen)]
    problems += [f"only there: {name} {theirs[name].shape}" for name in sorted(rest - ours.keys())]
    problems += [
        f"{name}: {ours[name].shape} here, {theirs[name].shape} there"
        for name in sorted(rest & ours.keys())
        if ours[name].shape != theirs[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ValueError(
            f"the weights of {origin} do not fit this model ({len(problems)} differences): {shown}. "
            "Set model.name, model.width and model.width_rule to those of the checkpoint"
        )
    restored = rest & ours.keys()
    groups = sorted({name.split("/")[1] for name in restored})
    size = sum(theirs[name].size for name in restored)
    log(f"Restored from {origin}: {len(restored)} arrays, {size:,} values, in {_ranges(groups)}")
    if unseen:
        log(f"To be observed: {len(unseen)} ranges of activations, for int8")
    for name in sorted(skipped & theirs.keys()):
        log(f"Started fresh: {name} {ours[name].shape} ({theirs[name].shape} there, because the classes differ)")
    absent = skipped - theirs.keys()
    if absent:
        size = sum(ours[name].size for name in absent)
        groups = sorted({name.split("/")[1] for name in absent})
        log(f"Started fresh, absent there: {len(absent)} arrays, {size:,} values, in {_ranges(groups)}")

    def value(path: tuple, leaf: np.ndarray) -> np.ndarray:
        name = _name(path)
        return np.asarray(theirs[name], leaf.dtype) if name in restored else leaf

    return jax.tree_util.tree_map_with_path(value, fresh)


def flat(tree: Tree) -> dict[str, np.ndarray]:
    """Returns {"params/stem/conv/kernel": array, ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): leaf for path, leaf in leaves}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _ranges(names: list[str]) -> str:
    """Returns 'block_00 ... block_14, last_conv, stem' of sorted names: more than two that are numbered as a range."""
    parts = []
    for _, group in itertools.groupby(names, key=lambda name: re.split(r"\d", name, maxsplit=1)[0]):
        alike = list(group)
        parts += alike if len(alike) < 3 else [f"{alike[0]} ... {alike[-1]}"]
    return ", ".join(parts)
