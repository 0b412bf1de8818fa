"""The augmentation section of a config as a frozen, checked record."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

# Name -> (lowest, highest) allowed value; the strengths' upper ends keep factors such as 1 - strength above zero.
_RANGES = {
    "brightness": (0.0, 1.0),
    "contrast": (0.0, 1.0),
    "saturation": (0.0, 1.0),
    "hue": (0.0, 0.5),
    "randaugment_layers": (0, 16),
    "randaugment_magnitude": (0.0, 10.0),
    "randaugment_prob": (0.0, 1.0),
    "erase_prob": (0.0, 1.0),
    "mixup_alpha": (0.0, 100.0),
    "cutmix_alpha": (0.0, 100.0),
    "mix_prob": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What `config.augment` says (`configs/default.py` explains each field); the defaults switch everything off.

    Hashable, so that a jitted step may close over it: every choice is made while tracing and what is off costs nothing.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 9.0
    randaugment_prob: float = 1.0
    erase_prob: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_prob: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), whole=field.type is int)

    @property
    def is_off(self) -> bool:
        """Whether nothing happens to an image."""
        strengths = ("brightness", "contrast", "saturation", "hue", "erase_prob")
        layers = self.randaugment_layers and self.randaugment_prob
        mixes = self.mix_prob and (self.mixup_alpha or self.cutmix_alpha)
        return not (any(getattr(self, name) for name in strengths) or layers or mixes)

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "AugmentConfig":
        """Checks a config's `augment` section (ConfigDict or dict) and freezes it; ValueError says what is wrong."""
        names = tuple(_RANGES)
        for name in section:
            if name not in names:
                nearest = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean augment.{nearest[0]}?" if nearest else f"allowed: {', '.join(names)}"
                raise ValueError(f"augment.{name} is not a field; {hint}")
        return cls(**dict(section))


def _check(name: str, value: Any, *, whole: bool) -> None:
    low, high = _RANGES[name]
    kind = "a whole number" if whole else "a number"
    allowed = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise ValueError(f"augment.{name} is {value!r}; it must be {kind} from {low} to {high}")
