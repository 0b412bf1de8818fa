"""The network for classification: MobileNet with one logit a class."""

import jax

from mnet_jax.models.compute import Compute
from mnet_jax.models.dropout import Dropout
from mnet_jax.models.layers import Conv
from mnet_jax.models.mobilenet import SCOPE, MobileNet
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import find_spec


class Classifier(MobileNet):
    """The backbone, dropout, and the plan's classifier, in the scope "classifier"."""

    def setup(self) -> None:
        """Declares the layers above the embedding; logits are float32 whatever the backbone computes in."""
        super().setup()
        self.dropout = Dropout(self.plan.dropout)
        self.classifier = Conv(self.plan.classifier, self.shared(dtype="float32"))

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits, float32 [N, num_classes], of images, float [N, H, W, 3], normalised, any size from 32."""
        return self.classify(self.embed(images, train=train), train=train)

    def classify(self, embeddings: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns logits, float32 [N, num_classes], of what `embed` made; dropout in training."""
        x = self.dropout(embeddings, train=train)
        return self.classifier(x, train=train)


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
) -> Classifier:
    """Returns the network `name` (see `list_models`) with a classifier; arguments as in `resolve` and `Compute`.

    Raises:
      ValueError: one line that says what was given and what is allowed.
    """
    plan = resolve(
        find_spec(name),
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
    return Classifier(plan, Compute(dtype, norm_axis_name, norm_frozen), name=SCOPE)
