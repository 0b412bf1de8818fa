"""The network for detection: MobileNet with a head of SSD or SSDLite, or with one on a feature pyramid."""

import jax
import jax.numpy as jnp

from mnet_jax.models import plans
from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.boxes import HeadPlan
from mnet_jax.models.heads.neck import Layers, NeckPlan
from mnet_jax.models.heads.tables import find_detector, resolve_detector
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.layers import ACTIVATIONS, Conv
from mnet_jax.models.mobilenet import SCOPE, MobileNet
from mnet_jax.models.variables import list_ranges, list_variables


class Detector(MobileNet):
    """A backbone with a head for boxes, whose layers lie beside the backbone's: "extra_0_reduce" ..., "boxes_5".

    Attributes:
      plan: of the backbone; what it has above the maps that the head takes is left out (`for_plan`).
      compute: as of MobileNet. What gives codes and logits computes in float32.
      head_plan: the head.
    """

    head_plan: HeadPlan | None = None

    @classmethod
    def for_plan(cls, plan: plans.ModelPlan, compute: Compute, head: HeadPlan) -> "Detector":
        """Returns the network of a head that was resolved for this backbone."""
        return cls(trimmed(plan, head.taps), compute, head, name=SCOPE)

    def setup(self) -> None:
        """Declares the layers of backbone and head."""
        super().setup()
        shared, exact = self.shared(), self.shared(dtype="float32")
        for layer in self.head_plan.layers:
            if isinstance(layer, plans.NormPlan):
                module = shared.norm_module(layer.name)
            else:
                module = Conv(layer, exact if layer.name in self.head_plan.predictors else shared)
            setattr(self, layer.name, module)

    def __call__(self, images: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Returns what the head says of each of the image's A anchors (`tasks/detection/anchors.py`, same order).

        {"boxes": float32 [N, A, 4], codes (ty, tx, th, tw), multiplied with `head_plan.code_scales`;
        "classes": float32 [N, A, head_plan.num_slots], logits}.

        Args:
          images: float [N, H, W, 3], normalised, at least 128 pixels a side.
          train: whether norms use the batch's statistics, and blocks are dropped.
        """
        return self._predict(self.head_maps(images, train=train), train=train)

    def head_maps(self, images: jax.Array, *, train: bool = False) -> list[jax.Array]:
        """Returns the maps that the head predicts from, [N, H', W', C] each, from the finest."""
        taken = self.taps(images, [tap.path for tap in self.head_plan.taps], train=train)
        maps = [taken[tap.path] for tap in self.head_plan.taps]
        if self.head_plan.neck is not None:
            return self._pyramid(self.head_plan.neck, maps, train=train)
        for layers in self.head_plan.extras:
            maps.append(self._run(layers, maps[-1], train=train))
        return maps

    def _pyramid(self, neck: NeckPlan, taps: list[jax.Array], *, train: bool) -> list[jax.Array]:
        """Returns the maps of a feature pyramid, from the finest."""
        above, maps = None, []
        for x, lateral, smoothing in reversed(list(zip(taps, neck.laterals, neck.smoothing, strict=True))):
            x = self._run(lateral, x, train=train)
            if above is not None:
                larger = _twice(above)[:, : x.shape[1], : x.shape[2]]
                if larger.shape != x.shape:  # averages in place of strides round down
                    raise ValueError(
                        f"the maps of {self.plan.name} do not fit into each other for images of this size, as a "
                        "pyramid needs it: give images whose sides are multiples of 32"
                    )
                x += larger
            smooth = self._run(smoothing, x, train=train)
            above = smooth if neck.smoothed_goes_down else x
            maps.insert(0, smooth)
        for index, layers in enumerate(neck.coarser):
            x = maps[-1]
            if index and neck.between is not None:
                x = ACTIVATIONS[neck.between](x)
            maps.append(self._run(layers, x, train=train))
        return [self._run(layers, x, train=train) for layers, x in zip(neck.final, maps, strict=True)]

    def list_variables(self) -> list[plans.Variable]:
        """Returns all variables of the network."""
        ranges = list_ranges(self.head_plan.ranges()) if self.plan.quantization is not None else []
        return list_variables(self.plan) + self.head_plan.variables() + ranges

    def head_layers(self, image_size: plans.Size) -> list[tuple[plans.LayerPlan, plans.Size]]:
        """Returns all layers of the head, with the size of the map that each is given."""
        return self.head_plan.placed(image_size)

    def _predict(self, maps: list[jax.Array], *, train: bool) -> dict[str, jax.Array]:
        """Returns codes [N, A, 4] and logits: of each map its positions row by row, of each position its anchors."""
        head = self.head_plan
        found = {"boxes": [], "classes": []}
        for classes, boxes, x in zip(head.classes, head.boxes, maps, strict=True):
            shared = 0  # layers of a tower that both look at
            while classes[shared].name == boxes[shared].name:
                shared += 1
            x = self._run(classes[:shared], x, train=train)
            for name, layers, numbers in (("boxes", boxes, 4), ("classes", classes, head.num_slots)):
                found[name].append(self._run(layers[shared:], x, train=train).reshape(x.shape[0], -1, numbers))
        return {name: jnp.concatenate(parts, axis=1).astype(jnp.float32) for name, parts in found.items()}

    def _run(self, layers: Layers, x: jax.Array, *, train: bool) -> jax.Array:
        for layer in layers:
            x = getattr(self, layer.name)(x, train=train)
            if isinstance(layer, plans.NormPlan):
                x = x if layer.activation is None else ACTIVATIONS[layer.activation](x)
                x = x.astype(self.compute.dtype)
        return x


def _twice(x: jax.Array) -> jax.Array:
    """Returns maps [N, 2 H, 2 W, C] of [N, H, W, C], each position four times."""
    count, height, width, features = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (count, height, 2, width, 2, features))
    return x.reshape(count, 2 * height, 2 * width, features)


def create_detector(
    name: str,
    *,
    num_classes: int,
    width: float | None = None,
    dtype: str = "float32",
    norm_axis_name: str | None = None,
) -> Detector:
    """Returns a detector of `models.heads.tables.DETECTORS`.

    Args:
      name: "ssdlite320_v3_large", "ssd300_v1", ...
      num_classes: without the background, which has a slot of its own where the head says so.
      width: multiplier of the layers' widths; None: the detector's own.
      dtype: of convolutions, "float32" or "bfloat16".
      norm_axis_name: as of `Compute`.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    plan, head = resolve_detector(find_detector(name), num_classes, width=width)
    return Detector(plan, Compute(dtype, norm_axis_name), head, name=SCOPE)
