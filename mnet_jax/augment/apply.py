"""The augmentation of a uint8 batch on the device: what an `Augmentation` switches on, in a fixed order.

    colour jitter    brightness, contrast, saturation, hue, in this order (torchvision draws the order too): `color.py`
    RandAugment      `randaugment.py`
    erasing          `erasing.py`
    normalisation    the task's
    mixing           the task calls `mixing.py`, which needs its targets

Images stay whole numbers in 0..255 up to the normalisation, with PIL's arithmetic. All choices in the settings are made
while tracing: what is off is not in the program.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mnet_jax.augment import color, erasing, mixing, randaugment
from mnet_jax.augment.settings import Augmentation, Effect


def augment_images(
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    settings: Augmentation,
    *,
    fill: tuple[int, int, int],
    operations: tuple[str, ...] = randaugment.ALL,
) -> jax.Array:
    """Returns the images after all that happens to one image by itself, uint8 [B, H, W, 3].

    Args:
      key: of the step.
      images: uint8 [B, H, W, 3].
      positions: int32 [B], the examples' numbers in the step; an example's result depends on (key, position) only.
      settings: what to do.
      fill: colour of what shears, translations and rotations show from outside an image.
      operations: what RandAugment draws from, such as `randaugment.operations_with({Effect.RECOLOURS})`.
    """
    layers = settings.randaugment_layers if settings.randaugment_prob and operations else 0
    sizes = (4 if _jitters(settings) else 0, 3 * layers, erasing.NUM_DRAWS if settings.erase_prob else 0)
    if not any(sizes):
        return images

    def draw(position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, position), (sum(sizes),))

    for_jitter, for_randaugment, for_erasing = jnp.split(jax.vmap(draw)(positions), np.cumsum(sizes)[:2], axis=1)
    images = _jitter(images, for_jitter, settings)
    if layers:
        images = _randaugment(images, for_randaugment.reshape(-1, layers, 3), settings, fill, operations)
    if settings.erase_prob:
        images = erasing.erase(images, for_erasing, prob=settings.erase_prob)
    return images


def effects(settings: Augmentation, *, operations: Collection[str] = randaugment.ALL) -> dict[str, frozenset[Effect]]:
    """Returns what is switched on, mixing included: {field that is 0 where it is off: what it does to images}."""
    mixes = {mixing.EFFECT} if settings.mix_prob else set()
    possible = {
        "brightness": {color.EFFECT},
        "contrast": {color.EFFECT},
        "saturation": {color.EFFECT},
        "hue": {color.EFFECT},
        "randaugment_layers": {randaugment.OPERATIONS[name] for name in operations if settings.randaugment_prob},
        "erase_prob": {erasing.EFFECT},
        "mixup_alpha": mixes,
        "cutmix_alpha": mixes,
    }
    return {field: frozenset(does) for field, does in possible.items() if does and getattr(settings, field)}


def check_effects(
    settings: Augmentation,
    task: str,
    *,
    follows: Collection[Effect],
    operations: Collection[str] = randaugment.ALL,
) -> None:
    """Raises ValueError if something is switched on that a task cannot follow; one line says what to type instead.

    Args:
      settings: what is on.
      task: the task's name.
      follows: the effects under which the annotations of the task stay true.
      operations: what the task lets RandAugment draw from, as it gives it to `augment_images`.
    """
    on = effects(settings, operations=operations)
    refused = {field: does - set(follows) for field, does in on.items() if not does <= set(follows)}
    if refused:
        given = ", ".join(f"augment.{field}={getattr(settings, field)!r}" for field in refused)
        images = " or ".join(effect.value for effect in Effect if any(effect in does for does in refused.values()))
        off = " ".join(f"--config.augment.{field}={getattr(Augmentation(), field)!r}" for field in refused)
        raise ValueError(f"{given}: the task {task} cannot follow images {images}; set {off}")


def _jitters(settings: Augmentation) -> bool:
    return any((settings.brightness, settings.contrast, settings.saturation, settings.hue))


def _jitter(images: jax.Array, draws: jax.Array, settings: Augmentation) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] in other colours, by draws float32 [B, 4] (unused where jitter is off)."""
    amounts = 2 * draws - 1
    if settings.brightness:
        images = color.brightness(images, 1 + settings.brightness * amounts[:, 0])
    if settings.contrast:
        images = color.contrast(images, 1 + settings.contrast * amounts[:, 1])
    if settings.saturation:
        images = color.saturation(images, 1 + settings.saturation * amounts[:, 2])
    if settings.hue:
        images = color.hue(images, settings.hue * amounts[:, 3])
    return images


def _randaugment(
    images: jax.Array, draws: jax.Array, settings: Augmentation, fill: tuple[int, int, int], names: tuple[str, ...]
) -> jax.Array:
    """Returns images uint8 [B, H, W, 3] after all layers of RandAugment.

    The draws float32 [B, layers, 3] are in 0..1: which of the operations `names`, whether to apply it, its sign.
    """
    operations = jnp.minimum(jnp.floor(draws[..., 0] * len(names)).astype(jnp.int32), len(names) - 1)
    operations = jnp.where(draws[..., 1] < settings.randaugment_prob, operations, -1)
    signs = jnp.where(draws[..., 2] < 0.5, -1.0, 1.0)
    magnitude = settings.randaugment_magnitude

    def one_layer(images: jax.Array, drawn: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return randaugment.layer(images, *drawn, magnitude=magnitude, fill=fill, operations=names), None

    return lax.scan(one_layer, images, (operations.T, signs.T))[0]  # a loop, to compile one layer only
