"""What a MobileNet is, as data: the record of one architecture, with numbers as its paper prints them, at width 1.

A *spec* says what a paper's table says; a *plan* (plans.py) is one concrete network, which `resolve.resolve` makes of
it. Everyone else reads plans, so that no width is computed twice. Pure Python, no jax.
"""

import dataclasses
from collections.abc import Mapping

from mnet_jax.models.blocks import BlockSpec, Conv
from mnet_jax.models.plans import Norm
from mnet_jax.models.widths import WidthRule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """The hidden layer between pooling and classifier: with norm in V4, with a bias in V3."""

    features: int
    norm: bool = False
    bias: bool = False
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fusion:
    """V5's fusion of the maps of its last strides to one of a fixed size, which is what is pooled."""

    maps: int  # how many, from the last stride back
    expand: int  # of the channels of all of them, inside
    features: int
    size: int  # rows, and columns, of the result
    activation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One architecture of one paper, with its default regularisation."""

    name: str
    source: str  # paper and table
    image_size: int  # pixels of a side, of the paper's headline number
    stem: Conv
    blocks: tuple[BlockSpec, ...]
    fusion: Fusion | None = None
    last_conv: Conv | None = None
    head: Head | None = None
    dropout: float
    norm: Norm
    width_rules: Mapping[str, WidthRule]
