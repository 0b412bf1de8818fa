"""A head on a backbone, as somebody published it: what goes with the pair, whatever the head gives. No jax."""

import dataclasses
from typing import Any, ClassVar

from mnet_jax.models.plans import ModelPlan
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec

_MODEL = ("width", "width_rule", "padding", "norm_decay", "norm_epsilon")  # fields of a config's section model


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSpec:
    """A head on a backbone, with what goes with the pair: how it is padded and normalised, and for which images."""

    task: ClassVar[str]  # that the head is for, a name of `mnet_jax/tasks`

    name: str
    model: str  # of `models.tables.SPECS`
    head: str  # of the task's table of heads
    image_size: int  # pixels of a side
    width: float = 1.0
    width_rule: str = "tf"
    padding: str = "same"
    norm_decay: float
    norm_epsilon: float = 1e-3
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)  # of pixels in 0 .. 255, which become -1 .. 1
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the fields of a config that make it, by their full names."""
        return {
            "model.name": self.model,
            **{f"model.{field}": getattr(self, field) for field in _MODEL},
            "data.image_size": self.image_size,
            "data.eval_crop": 1.0,  # whole pictures, whatever their shape
            "data.mean": self.mean,
            "data.std": self.std,
            "task.name": self.task,
            "task.head": self.head,
        }

    def backbone(self, width: float | None = None) -> ModelPlan:
        """Returns the plan of the backbone, whole; `width`: multiplier of its widths, None: the pair's own.

        Raises:
          ValueError: one line that says what was given and what is allowed.
        """
        settings = {field: getattr(self, field) for field in _MODEL}
        return resolve(find_spec(self.model), **settings if width is None else settings | {"width": width})
