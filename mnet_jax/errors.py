"""One wording for what a user can get wrong: what was given, what is allowed, and the nearest name that exists."""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Sequence


def nearest(given: object, known: Iterable[object], *, count: int = 1) -> list[str]:
    """Returns at most `count` known names that resemble `given`, the most similar first."""
    return difflib.get_close_matches(str(given), [str(name) for name in known], n=count, cutoff=0.5)


def did_you_mean(given: object, known: Iterable[object]) -> str:
    """Returns " Did you mean 'name'?" for the nearest known name, or "" where none resembles `given`."""
    near = nearest(given, known)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(what: str, given: object, allowed: Sequence[object]) -> None:
    """Raises ValueError unless `given` is one of `allowed`; the message lists them and names the nearest."""
    if given in allowed:
        return
    choices = ", ".join(str(choice) for choice in allowed)
    raise ValueError(f"unknown {what} {given!r}; choose one of: {choices}.{did_you_mean(given, allowed)}")


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an end that is open does not belong to them."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether `value` is inside; NaN never is."""
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        """Returns the range in words: "above 0 and at most 1"."""
        parts = []
        if self.low > -math.inf:
            parts.append(f"{'above' if self.open_low else 'at least'} {self.low:g}")
        if self.high < math.inf:
            parts.append(f"{'below' if self.open_high else 'at most'} {self.high:g}")
        return " and ".join(parts)


def check_number(what: str, given: object, allowed: Range) -> None:
    """Raises ValueError unless `given` is a number (True and False are none) inside the range."""
    if isinstance(given, bool) or not isinstance(given, int | float) or given not in allowed:
        raise ValueError(f"{what} must be a number {allowed}, got {given!r}")


_KINDS = {"invalid literal": "a whole number", "could not": "a number", "Non-boolean": "True or False"}


def of_flag(text: str) -> str:
    """Returns what absl says about a flag; of a value that is of another kind than its field, which kind it must be."""
    value = re.fullmatch(r"flag --config\.([\w.]+=.*): \(?'?(invalid literal|could not|Non-boolean).*", text)
    return f"{value[1]}: it must be {_KINDS[value[2]]}" if value else text
