"""What is switched on of the augmentation, as a frozen record, and the words for what an operation does to an image.

The fields, their units and defaults are those of `config.augment` (mnet_jax/schema.py); `mnet_jax.config.validate`
checks their values, here nothing is checked again.
"""

import dataclasses
import enum


class Effect(enum.Enum):
    """What an operation does to an image. A task follows an effect if its annotations are still true afterwards.

    Each operation states its own in its file. The values complete "images ...", for messages.
    """

    RECOLOURS = "whose colours change"  # every pixel stays in its place
    MOVES = "whose pixels move"  # on the device, where boxes and maps do not move with them
    COVERS = "that are partly covered"
    MIXES = "that are mixed with others"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The section `augment` of a config, made by `Augmentation(**config.augment)`; the defaults switch everything off.

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
