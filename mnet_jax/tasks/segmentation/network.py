"""The network for segmentation: MobileNet with a head of LR-ASPP or DeepLabv3."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from mnet_jax.models import plans
from mnet_jax.models.compute import Compute
from mnet_jax.models.dropout import Dropout
from mnet_jax.models.heads.mask_tables import find_segmenter, resolve_segmenter
from mnet_jax.models.heads.masks import AUXILIARY_DROPOUT, DeeplabPlan, LrasppPlan, MaskHeadPlan
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.layers import Conv
from mnet_jax.models.mobilenet import SCOPE, MobileNet
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.models.variables import list_variables


class Segmenter(MobileNet):
    """A backbone with a head for masks, whose layers lie beside the backbone's: "mask_project" ..., "mask_classes".

    Attributes:
      plan: of the backbone, dilated; what it has above the maps that the head takes is left out (`for_plan`).
      compute: as of MobileNet. What gives logits computes in float32.
      head_plan: the head.
    """

    head_plan: MaskHeadPlan | None = None

    @classmethod
    def for_plan(cls, plan: plans.ModelPlan, compute: Compute, head: MaskHeadPlan) -> "Segmenter":
        """Returns the network of a head that was resolved for this backbone, dilated or not."""
        return cls(trimmed(head.backbone(plan), head.taps), compute, head, name=SCOPE)

    def setup(self) -> None:
        """Declares the layers of backbone and head."""
        super().setup()
        head = self.head_plan
        shared, exact = (dataclasses.replace(self.shared(dtype=dtype), norm=head.norm) for dtype in (None, "float32"))
        for layer in head.layers:
            setattr(self, layer.name, Conv(layer, shared if layer.norm else exact))
        if isinstance(head, DeeplabPlan):
            self.mask_dropout = Dropout(head.dropout)
            self.auxiliary_dropout = Dropout(AUXILIARY_DROPOUT)

    def __call__(
        self, images: jax.Array, *, train: bool = False, auxiliary: bool | None = None
    ) -> dict[str, jax.Array]:
        """Returns the logits at the head's resolution; `ops.bilinear.upsample` brings them to that of the pixels.

        {"classes": float32 [N, h, w, C]}, h and w as `head_plan.map_size` says, and, of a head that has an auxiliary
        one, "auxiliary": float32 [N, h', w', C], at another resolution.

        Args:
          images: float [N, H, W, 3], normalised, any size from 32.
          train: whether norms use the batch's statistics, and blocks and features are dropped (`models.dropout`).
          auxiliary: whether the auxiliary head is applied where there is one; None: in training alone.

        Raises:
          ValueError: in training, if a norm would get a single value of each channel.
        """
        head = self.head_plan
        maps = self.taps(images, [tap.path for tap in head.taps], train=train)
        outputs = {"classes": (self._lraspp if isinstance(head, LrasppPlan) else self._deeplab)(maps, train=train)}
        wanted = train if auxiliary is None else auxiliary
        if head.has_auxiliary and (wanted or self.is_initializing()):
            x = self.auxiliary(maps[head.low.path], train=train)
            x = self.auxiliary_dropout(x, train=train)
            outputs["auxiliary"] = self.auxiliary_classes(x, train=train)
        return outputs

    def list_variables(self) -> list[plans.Variable]:
        """Returns all variables of the network."""
        return list_variables(self.plan) + self.head_plan.variables()

    def head_layers(self, image_size: plans.Size) -> list[tuple[plans.LayerPlan, plans.Size]]:
        """Returns the layers of the head that inference runs, with the size of the map that each is given."""
        return self.head_plan.placed(image_size)

    def _lraspp(self, maps: dict[str, jax.Array], *, train: bool) -> jax.Array:
        head: LrasppPlan = self.head_plan
        high, low = maps[head.high.path], maps[head.low.path]
        gate = self.mask_gate(_pool(high, head.pool), train=train)
        if gate.shape[1:3] != (1, 1):
            gate = upsample(gate, high.shape[1:3], align_corners=head.align_corners)
        x = self.mask_project(high, train=train)
        logits = self.mask_classes(x * gate.astype(x.dtype), train=train)
        # Each position's classifier and the resizing may change places: what is resized has fewer channels so.
        logits = upsample(logits, low.shape[1:3], align_corners=head.align_corners)
        return logits + self.mask_low_classes(low, train=train)

    def _deeplab(self, maps: dict[str, jax.Array], *, train: bool) -> jax.Array:
        head: DeeplabPlan = self.head_plan
        high = maps[head.high.path]
        if train:
            self._check_pooled(high)
        pooled = self.mask_pooled(_pool(high, None), train=train)
        pooled = jnp.broadcast_to(pooled, (*high.shape[:3], pooled.shape[-1]))
        branches = [getattr(self, layer.name)(high, train=train) for layer in (head.local, *head.wider)]
        branches = [pooled, *branches] if head.pooled_first else [*branches, pooled]
        x = self.mask_merge(jnp.concatenate(branches, axis=-1), train=train)
        x = self.mask_dropout(x, train=train)
        if head.refine is not None:
            x = self.mask_refine(x, train=train)
        return self.mask_classes(x, train=train)

    def _check_pooled(self, high: jax.Array) -> None:
        """Raises ValueError if the pooled branch's norm would get one vector: it would be 0 whatever the images."""
        axis = self.compute.norm_axis_name
        count = high.shape[0] * (1 if axis is None else lax.axis_size(axis))
        if count < 2 and not self.compute.norm_frozen and not self.is_initializing():
            raise ValueError(
                f"the pooled branch of the head {self.head_plan.name} normalises over one image, which leaves nothing "
                "of it: give each device at least 2 images a part, or set model.norm_sync or model.norm_frozen to True"
            )


def _pool(x: jax.Array, windows: tuple[plans.Size, plans.Size] | None) -> jax.Array:
    """Returns the means of a map's windows, float32 [N, h, w, C]; None: of the whole map, [N, 1, 1, C]."""
    if windows is None or all(window >= side for window, side in zip(windows[0], x.shape[1:3], strict=True)):
        return x.mean((1, 2), dtype=jnp.float32, keepdims=True)
    window = tuple(min(window, side) for window, side in zip(windows[0], x.shape[1:3], strict=True))
    total = lax.reduce_window(x.astype(jnp.float32), 0.0, lax.add, (1, *window, 1), (1, *windows[1], 1), "VALID")
    return total / math.prod(window)


def create_segmenter(
    name: str,
    *,
    num_classes: int,
    width: float | None = None,
    output_stride: int | None = None,
    auxiliary: bool | None = None,
    dtype: str = "float32",
    norm_axis_name: str | None = None,
) -> Segmenter:
    """Returns a segmenter of `models.heads.mask_tables.SEGMENTERS`.

    Args:
      name: "lraspp_v3_large", "deeplab_v2_tf", ...
      num_classes: of the map, with the background if there is one.
      width: multiplier of the backbone's widths; None: the segmenter's own.
      output_stride: 8, 16 or 32, by dilation; None: the segmenter's own.
      auxiliary: whether training has an auxiliary head; None: as the segmenter has it.
      dtype: of convolutions, "float32" or "bfloat16".
      norm_axis_name: as of `Compute`.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    plan, head = resolve_segmenter(
        find_segmenter(name), num_classes, width=width, output_stride=output_stride, auxiliary=auxiliary
    )
    return Segmenter(plan, Compute(dtype, norm_axis_name), head, name=SCOPE)
