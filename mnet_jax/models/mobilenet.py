"""MobileNet: a plan -> logits for classification, or feature maps for other heads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnet_jax import errors
from mnet_jax.models import plans, specs
from mnet_jax.models.blocks import MODULES
from mnet_jax.models.fake_quantization import round_observed
from mnet_jax.models.layers import Compute, Conv
from mnet_jax.models.tables import SPECS, list_models

DTYPES = ("float32", "bfloat16")


class MobileNet(nn.Module):
    """Any network of the family.

    Variables: {"params": ..., "batch_stats": ...}, all float32, in scopes named after the plan's layers: "stem",
    "block_00" ..., "last_conv", "head", "classifier". Dropout and drop path draw from the rng stream "dropout".

    Attributes:
      plan: what `specs.resolve` made.
      dtype: compute dtype of convolutions, "float32" or "bfloat16"; norm statistics, pooling and logits are float32.
      norm_axis_name: mapped axis over which batch-norm statistics are the global batch's; None: each device its own.
      norm_frozen: training, too, normalises with the running statistics and leaves them as they are.
    """

    plan: plans.ModelPlan
    dtype: str = "float32"
    norm_axis_name: str | None = None
    norm_frozen: bool = False

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images, float [N, H, W, 3], normalised, any size from 32 -> logits, float32 [N, num_classes]."""
        return self._run(images, train=train, goal="logits")

    def features(self, images: jax.Array, *, train: bool = False) -> dict[int, jax.Array]:
        """Maps for other heads, keyed by stride: 4, 8, 16, 32 (from `plan.stem_stride` on), each [N, H', W', C].

        H' is H / stride, rounded up. Each map is the output of the last block at its stride (`plan.feature_blocks`),
        before `last_conv`: in V1 of a separable block; in V2 and V3 of a projection, hence without activation; in V4
        of a UIB or attention block.
        """
        return self._run(images, train=train, goal="maps")

    def embed(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Images -> what the classifier sees, float32 [N, `plan.classifier.in_features`].

        The last map's mean over its positions; where the architecture has a layer between that and the classifier
        ("head": V3 and V4), what comes out of it. Before dropout. `classify` goes on from here.
        """
        return self._run(images, train=train, goal="embedding")

    def classify(self, embeddings: jax.Array, *, train: bool = False) -> jax.Array:
        """What `embed` made -> logits, float32 [N, num_classes]; dropout in training."""
        return self._run(embeddings, train=train, goal="logits", embedded=True)

    @nn.compact
    def _run(self, x: jax.Array, *, train: bool, goal: str, embedded: bool = False) -> jax.Array | dict[int, jax.Array]:
        """`goal` "maps", "embedding" or "logits" of images, or, `embedded`, of what came before the classifier."""
        if not embedded:
            x = self._backbone(x, train=train, goal=goal)
        if goal != "logits":
            return x
        plan = self.plan
        x = nn.Dropout(plan.dropout, name="dropout")(x, deterministic=not train)
        exact = Compute("float32", plan.padding, plan.norm, self.norm_axis_name, self.norm_frozen, plan.quantization)
        return Conv(plan.classifier, exact, name="classifier")(x, train=train)

    def _backbone(self, images: jax.Array, *, train: bool, goal: str) -> jax.Array | dict[int, jax.Array]:
        """Everything before the classifier; runs inside the compact `_run`."""
        plan = self.plan
        if images.ndim != 4 or images.shape[-1] != 3 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images must be floating point [N, height, width, 3], normalised; got {images.dtype} {images.shape}"
            )
        compute = Compute(self.dtype, plan.padding, plan.norm, self.norm_axis_name, self.norm_frozen, plan.quantization)
        strides = {name: stride for stride, name in plan.feature_blocks}
        features = {}
        x = Conv(plan.stem, compute, name="stem")(images, train=train)
        for block in plan.blocks:
            x = MODULES[type(block)](block, compute, name=block.name)(x, train=train)
            if block.name in strides:
                features[strides[block.name]] = x
        if goal == "maps":
            return features
        if plan.last_conv is not None:
            x = Conv(plan.last_conv, compute, name="last_conv")(x, train=train)
        x = x.mean((1, 2), dtype=jnp.float32)
        x = round_observed(self, "pool_range", x, plan.quantization, train=train)
        if plan.head is not None:
            x = Conv(plan.head, compute, name="head")(x, train=train)
        return x.astype(jnp.float32)


def create_model(
    name: str,
    *,
    num_classes: int = 1000,
    width: float = 1.0,
    width_rule: str = "tf",
    dropout: float | None = None,
    drop_path: float = 0.0,
    dtype: str = "float32",
    padding: str = "same",
    stem_stride: int = 4,
    norm_decay: float | None = None,
    norm_epsilon: float | None = None,
    norm_axis_name: str | None = None,
    norm_frozen: bool = False,
    quantize_range_decay: float | None = None,
) -> MobileNet:
    """Returns the network `name` (see `list_models`); arguments as in `specs.resolve` and `MobileNet`.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    errors.check_choice("model", name, list_models())
    errors.check_choice("dtype", dtype, DTYPES)
    plan = specs.resolve(
        SPECS[name],
        num_classes=num_classes,
        width=width,
        width_rule=width_rule,
        dropout=dropout,
        drop_path=drop_path,
        padding=padding,
        stem_stride=stem_stride,
        norm_decay=norm_decay,
        norm_epsilon=norm_epsilon,
        quantize_range_decay=quantize_range_decay,
    )
    return MobileNet(plan, dtype=dtype, norm_axis_name=norm_axis_name, norm_frozen=norm_frozen)
