"""Names of arrays as trainers save them -> the network's own: without what a wrapper put before them."""

import re
from collections.abc import Callable, Iterable

from mnet_jax.pretrained.convert import Arrays

# The first layer of timm's V1 to V4, of its V5 and of torchvision's: before it lies the prefix.
STEMS = ("conv_stem.weight", "conv_stem.conv.weight", "features.0.0.weight")
_TOWER = "vision_tower."  # the network's place in a language model that sees, such as Gemma 3n's

_COUNTERS = ("n_averaged", "num_batches_tracked")  # of torch's AveragedModel and of batch norm: no weights
_AVERAGED = re.compile(r"(^|[._])(ema|averaged|average|swa)([._]|$)")


def wanted(names: Iterable[str]) -> set[str]:
    """Returns which of a file's arrays to read: of a language model that sees, those of its vision tower; else all."""
    names = set(names)
    towers = {
        name.removesuffix(stem)
        for name in names
        for stem in STEMS
        if name.endswith("." + stem) and _TOWER in name.removesuffix(stem)
    }
    return {name for name in names if name.startswith(tuple(towers))} if towers else names


def unwrapped(arrays: Arrays, *, ema: bool, origin: str, log: Callable[[str], None]) -> Arrays:
    """Returns the arrays of one network by its own names, such as "features.0.0.weight".

    What is taken off: "_orig_mod." of torch.compile wherever it stands, "module." of data parallelism and of averaged
    models, and whatever a trainer's own module calls the network ("model.", "net.", "backbone."), which is what stands
    before the name of its first layer. Names without that prefix stay as they are: a classifier may be among them.

    Args:
      arrays: all of the file.
      ema: which network to take where the file has averaged weights and raw ones.
      origin: what to call the file in messages.
      log: is told which of two networks was taken.

    Raises:
      ValueError: if the file has several networks and nothing says which one is meant.
    """
    arrays = {
        name.replace("_orig_mod.", ""): array
        for name, array in arrays.items()
        if name.rpartition(".")[2] not in _COUNTERS
    }
    while arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    prefixes = sorted({
        name.removesuffix(stem)
        for name in arrays
        for stem in STEMS
        if name == stem or name.endswith("." + stem)
    })  # fmt: skip
    if len(prefixes) > 1:
        prefix = _choose(prefixes, ema, origin)
        others = [other for other in prefixes if other != prefix]
        log(f"{origin} holds several networks: that of {prefix or 'no prefix'!r} is taken, not {', '.join(others)}")
        arrays = {name: array for name, array in arrays.items() if not name.startswith(tuple(filter(None, others)))}
        if not prefix:
            return arrays
        arrays = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    elif not prefixes or not prefixes[0]:
        return arrays
    else:
        (prefix,) = prefixes
    return {name.removeprefix(prefix): array for name, array in arrays.items()}


def _choose(prefixes: list[str], ema: bool, origin: str) -> str:
    """Returns the prefix of the network that is meant."""
    averaged = [prefix for prefix in prefixes if _AVERAGED.search(prefix)]
    raw = [prefix for prefix in prefixes if prefix not in averaged]
    wanted = averaged if ema and averaged else raw
    if len(wanted) != 1:
        shown = ", ".join(repr(prefix + STEMS[0].partition(".")[0]) for prefix in prefixes)
        raise ValueError(f"{origin} holds {len(prefixes)} networks ({shown}): save the state dict of one of them")
    return wanted[0]
