"""How a network is computed, apart from what it is. Pure Python, no jax."""

import dataclasses

from mnet_jax.errors import check_choice

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Compute:
    """Settings of a network that change no variable of it.

    Attributes:
      dtype: of convolutions, "float32" or "bfloat16"; norm statistics, pooling and what a network gives are float32.
      norm_axis_name: mapped axis over which batch-norm statistics are the global batch's; None: each device its own.
      norm_frozen: training, too, normalises with the running statistics and leaves them as they are.
    """

    dtype: str = "float32"
    norm_axis_name: str | None = None
    norm_frozen: bool = False

    def __post_init__(self) -> None:
        check_choice("dtype", self.dtype, DTYPES)
