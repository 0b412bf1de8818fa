"""Regression of two outputs: the middle and the size of the boxes in an image, in shares of its side."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mnet_jax.data.annotations import Boxes
from mnet_jax.models.layers import Conv
from mnet_jax.models.mobilenet import SCOPE, MobileNet
from mnet_jax.models.plans import ConvPlan
from mnet_jax.tasks.task import MeanMeter, Measured, Metric, Task

SIDE = 32.0


def head_plan(plan, name):
    return ConvPlan(name, plan.embedding_features, 2, norm=False, bias=True, init="classifier")


class Regressor(MobileNet):
    """Two linear layers on the embedding, in scopes of their own."""

    def setup(self):
        super().setup()
        self.middle = Conv(head_plan(self.plan, "middle"), self.shared(dtype="float32"))
        self.size = Conv(head_plan(self.plan, "size"), self.shared(dtype="float32"))

    def __call__(self, images, *, train=False):
        x = self.embed(images, train=train)
        return {"middle": self.middle(x, train=train), "size": self.size(x, train=train)}

    def list_variables(self):
        heads = [head_plan(self.plan, name).variables(self.plan.norm) for name in ("middle", "size")]
        return [*super().list_variables(), *heads[0], *heads[1]]


class DistanceMeter(MeanMeter):
    """Beside the means, the median distance: from rows, which a mean cannot give."""

    def __init__(self):
        super().__init__()
        self._distances, self._indices = [], []

    def add(self, sums, rows):
        super().add(sums, rows)
        self._distances.append(rows["distance"])
        self._indices.append(rows["index"])

    def result(self):
        distances, indices = np.concatenate(self._distances), np.concatenate(self._indices)
        assert sorted(indices.tolist()) == list(range(len(indices)))  # every image once, no padding
        return {**super().result(), "median_distance": float(np.median(distances))}


@dataclasses.dataclass(frozen=True)
class Toy(Task):
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    name: ClassVar = "toy"
    annotations: ClassVar = {"boxes": Boxes(most=3)}
    metrics: ClassVar = (
        Metric("median_distance", "median distance", percent=False, higher_is_better=False),
        Metric("near", "near"),
        Metric("loss", "loss", percent=False, higher_is_better=False),
    )
    train_metrics: ClassVar = ("near",)
    own_scopes: ClassVar = ("middle", "size")

    def network(self, plan, compute):
        return Regressor(plan, compute, name=SCOPE)

    def _truth(self, batch):
        boxes, mask = batch["boxes"], batch["boxes_mask"].astype(jnp.float32)[..., None]
        count = jnp.maximum(mask.sum(1), 1.0)
        middle = ((boxes[..., :2] + boxes[..., 2:]) / 2 * mask).sum(1) / count / SIDE
        size = ((boxes[..., 2:] - boxes[..., :2]) * mask).sum(1) / count / SIDE
        return {"middle": middle, "size": size}

    def train_inputs(self, key, batch, positions, total):
        noise = jax.vmap(lambda p: jax.random.normal(jax.random.fold_in(key, p), (1, 1, 3)))(positions)
        images = self.eval_inputs(batch) + 0.05 * noise
        num_boxes = batch["boxes_mask"].sum(1).astype(jnp.float32)
        devices = total(jnp.ones(()))
        # each box counts the same over the whole step: the mean over examples times examples over boxes
        share = num_boxes * devices * len(num_boxes) / total(num_boxes.sum())
        return images, {**self._truth(batch), "share": share}

    def eval_inputs(self, batch):
        mean, std = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (self.mean, self.std))
        return (batch["image"].astype(jnp.float32) - mean) / std

    def loss(self, outputs, targets):
        errors = sum(jnp.square(outputs[name] - targets[name]).sum(-1) for name in ("middle", "size"))
        return errors * targets["share"]

    def measure(self, outputs, batch):
        truth, real = self._truth(batch), batch["mask"] > 0
        distance = SIDE * jnp.sqrt(jnp.square(outputs["middle"] - truth["middle"]).sum(-1))
        loss = sum(jnp.square(outputs[name] - truth[name]).sum(-1) for name in ("middle", "size"))

        def summed(values):
            return jnp.sum(jnp.where(real, values.astype(jnp.float32), 0))

        sums = {"near": summed(distance < 4), "loss": summed(loss), "count": summed(jnp.ones_like(loss))}
        return Measured(sums, {"distance": distance, "index": batch["index"]})

    def meter(self):
        return DistanceMeter()


def annotations(config):
    return Toy.annotations


def build(config, info):
    return Toy(mean=info.mean, std=info.std)
