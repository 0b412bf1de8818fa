"""What the kinds of blocks share as data: how a table's row is written, and what it is resolved with."""

import abc
import dataclasses
from typing import Any, ClassVar

from mnet_jax.models.plans import BlockPlan
from mnet_jax.models.widths import Widths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a block stands in a network, and how wide that is."""

    name: str  # its scope among the variables
    in_features: int  # what the layer before gives
    table_features: int  # what the table says of that, at width 1
    stride: int  # final: the first strided layers may have given up theirs
    drop_path: float
    widths: Widths

    def common(self, kind: str, features: int, *, residual: bool = True) -> dict[str, Any]:
        """Returns the fields that all block plans have. `residual`: of a kind that adds its input where it fits."""
        residual = residual and self.stride == 1 and self.in_features == features
        return {
            "name": self.name,
            "kind": kind,
            "in_features": self.in_features,
            "features": features,
            "stride": self.stride,
            "residual": residual,
            "drop_path": self.drop_path if residual else 0.0,
        }


class BlockSpec(abc.ABC):
    """A block as a paper's table prints it, at width 1; `resolve` turns it into the plan of one network's block."""

    features: int  # that it gives
    stride: int
    pool: str | None = None  # of `pools.POOLS`: has the strides; a field of the kinds that can
    refuses_int8: ClassVar[str | None] = None  # what in it is not trained with int8 rounding

    @abc.abstractmethod
    def resolve(self, place: Place) -> BlockPlan:
        """Returns the block with its widths rounded, its layers named and connected."""
