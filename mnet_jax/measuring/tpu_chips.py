"""TPU chips as Google publishes them: what a compiled program is held against.

Capacity, bandwidth and peak are of the system architecture pages of the Cloud TPU documentation (docs.cloud.google.com,
tpu/docs/v4 v5e v5p v6e tpu7x), read in November 2026. The clocks are not there: they are peak / (multiply-adds a cycle
of all matrix units of the device x 2), and the compiler's own estimates for a large matrix product and a large copy
agree with them (docs/tpu.md).
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device has: a whole chip, but on tpu7x one of the chip's two cores."""

    name: str
    hbm: int  # bytes
    bandwidth: float  # bytes a second
    peak: float  # bfloat16 operations a second
    clock: float  # cycles a second
    per_chip: int = 1  # devices


# By `device_kind`.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 32 * GIB, 1200e9, 275e12, 275e12 / (2 * 8 * 128**2)),
    "TPU v5 lite": Chip("v5e", 16 * GIB, 819e9, 197e12, 197e12 / (2 * 4 * 128**2)),
    "TPU v5": Chip("v5p", 95 * GIB, 2765e9, 459e12, 459e12 / (2 * 8 * 128**2)),
    "TPU v6 lite": Chip("v6e", 32 * GIB, 1640e9, 918e12, 918e12 / (2 * 4 * 256**2)),
    "TPU7x": Chip("tpu7x", 96 * GIB, 3690e9, 1154e12, 1154e12 / (2 * 4 * 256**2), per_chip=2),
}


def chip(device_kind: str) -> Chip:
    """Raises ValueError for a kind that is not in the table."""
    if device_kind not in CHIPS:
        known = ", ".join(entry.name for entry in CHIPS.values())
        raise ValueError(f"no figures for {device_kind!r}; there are those of {known}")
    return CHIPS[device_kind]
