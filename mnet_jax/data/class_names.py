"""What a class is called: the same class under the names of two sets, ImageNet's numbers and words among them."""

from __future__ import annotations

import collections
import re
from collections.abc import Callable, Iterable, Sequence

from mnet_jax.data.imagenet_names import NAMES

_WNID = re.compile(r"(?<![a-z0-9])n\d{8}(?![0-9])")


def places(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    """Returns the number of each name in the list `known`; a name that is in none of its forms there is left out.

    The same name comes first, then the same in other letters ("Great_White-Shark"), then the same class of ImageNet:
    its WordNet number, its name here, or the first of its words ("tench, Tinca tinca").
    """
    tables = [(form, _table(form, known)) for form in (str, _plain, _imagenet)]
    found = {}
    for name in names:
        hits = (table.get(form(name)) for form, table in tables)
        place = next((hit for hit in hits if hit is not None), None)
        if place is not None:
            found[name] = place
    return found


def _table(form: Callable[[str], str | None], known: Sequence[str]) -> dict[str | None, int]:
    """Returns the number of each class by a form of its name, where that says which of them it is."""
    forms = [form(name) for name in known]
    counts = collections.Counter(forms)
    return {name: number for number, name in enumerate(forms) if name is not None and counts[name] == 1}


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


_NUMBERS = {_plain(name): number for number, name in NAMES.items()}


def _imagenet(name: str) -> str | None:
    """Returns the WordNet number of a class of ImageNet, None if it is none."""
    if (number := _WNID.search(name.casefold())) and number.group() in NAMES:
        return number.group()
    return _NUMBERS.get(_plain(name)) or _NUMBERS.get(_plain(name.split(",")[0]))
