"""A segmenter that looks at an image several times in evaluation: in other sizes, and mirrored."""

import jax
import jax.numpy as jnp

from mnet_jax.models import plans
from mnet_jax.models.compute import Compute
from mnet_jax.models.heads.masks import MaskHeadPlan
from mnet_jax.models.heads.taps import trimmed
from mnet_jax.models.mobilenet import SCOPE
from mnet_jax.models.ops.bilinear import upsample
from mnet_jax.tasks.segmentation.network import Segmenter


class ManyViews(Segmenter):
    """A segmenter whose logits, in evaluation, are those of the mean of the probabilities in all views.

    Attributes:
      scales: factors on height and width of the input.
      flip: whether each scale is looked at mirrored too.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False

    @classmethod
    def of(
        cls, plan: plans.ModelPlan, compute: Compute, head: MaskHeadPlan, scales: tuple[float, ...], flip: bool
    ) -> "ManyViews":
        """Returns the network of a head that was resolved for this backbone."""
        return cls(trimmed(head.backbone(plan), head.taps), compute, head, scales, flip, name=SCOPE)

    def __call__(
        self, images: jax.Array, *, train: bool = False, auxiliary: bool | None = None
    ) -> dict[str, jax.Array]:
        """Returns what `Segmenter` does; in evaluation the logits of the mean over the views, at the head's size."""
        if train:
            return super().__call__(images, train=True, auxiliary=auxiliary)
        aligned, sides = self.head_plan.align_corners, images.shape[1:3]
        total = 0.0
        for scale in self.scales:
            scaled = upsample(images, tuple(max(32, round(side * scale)) for side in sides), align_corners=aligned)
            for flipped in (False, True)[: 1 + self.flip]:
                view = scaled[:, :, ::-1] if flipped else scaled
                logits = super().__call__(view, train=False, auxiliary=False)["classes"]
                logits = logits[:, :, ::-1] if flipped else logits
                total += jax.nn.softmax(upsample(logits, self.head_plan.map_size(sides), align_corners=aligned))
        return {"classes": jnp.log(total / (len(self.scales) * (1 + self.flip)) + 1e-12)}
