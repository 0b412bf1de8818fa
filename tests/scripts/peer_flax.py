"""Plain Flax: the same network from the same plan, written with nn.Conv, nn.BatchNorm and flax's activations, as a
Flax user would. Training is one jitted update with optax's RMSprop, no moving averages. Prints one JSON document."""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clock import options, report

from mnet_jax.models import plans
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS

ACTIVATIONS = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_swish": nn.hard_swish,
    "gelu": nn.gelu,
}


class Layer(nn.Module):
    plan: plans.ConvPlan

    @nn.compact
    def __call__(self, x, train):
        p = self.plan
        groups = p.features if p.depthwise else 1
        x = nn.Conv(
            p.features,
            (p.kernel, p.kernel),
            (p.stride, p.stride),
            padding="SAME",
            feature_group_count=groups,
            use_bias=p.bias and not p.norm,
        )(x)
        if p.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3)(x)
        return ACTIVATIONS[p.activation](x) if p.activation else x


class Net(nn.Module):
    plan: plans.ModelPlan

    @nn.compact
    def __call__(self, x, train):
        plan = self.plan
        x = Layer(plan.stem)(x, train)
        for block in plan.blocks:
            inputs = x
            for layer in block.layers:
                if isinstance(layer, plans.SqueezeExcitePlan):
                    gate = x.mean((1, 2), keepdims=True)
                    x = x * Layer(layer.expand)(Layer(layer.reduce)(gate, train), train)
                elif isinstance(layer, plans.ConvPlan):
                    x = Layer(layer)(x, train)
                else:
                    sys.exit("peer_flax.py has no attention blocks")
            if block.residual:
                x = x + inputs
        if plan.last_conv is not None:
            x = Layer(plan.last_conv)(x, train)
        x = x.mean((1, 2), keepdims=True)
        if plan.head is not None:
            x = Layer(plan.head)(x, train)
        x = nn.Dropout(plan.dropout, deterministic=not train)(x)
        return nn.Dense(plan.classifier.features)(x[:, 0, 0])


def main():
    args = options()
    model = Net(resolve(SPECS[args.model], num_classes=1000))
    rng = np.random.default_rng(0)
    side = args.image_size
    images = jnp.asarray(rng.standard_normal((args.batch_size, side, side, 3), np.float32))
    labels = jnp.asarray(rng.integers(0, 1000, args.batch_size))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, False))
    variables = jax.tree.map(lambda x: jnp.asarray(0.05 * rng.standard_normal(x.shape, np.float32)), shapes)
    variables["batch_stats"] = jax.tree.map(jnp.ones_like, variables["batch_stats"])
    optimizer = optax.rmsprop(1e-3, 0.9, 0.002, momentum=0.9)
    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 1000), 0.1)

    @jax.jit
    def infer(variables, images):
        return model.apply(variables, images, False)

    def update(state, images, targets, key):
        params, stats, opt_state = state

        def loss(params):
            logits, new = model.apply(
                {"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"], rngs={"dropout": key}
            )
            return optax.softmax_cross_entropy(logits, targets).mean(), new["batch_stats"]

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), stats, opt_state), value

    update = jax.jit(update, donate_argnums=0)
    key = jax.random.key(0)

    def run():
        nonlocal state
        if args.mode == "train":
            state, value = update(state, images, targets, key)
            value.block_until_ready()
        else:
            infer(variables, images).block_until_ready()

    report(run, args, peer=f"plain Flax, jax {jax.__version__}")


main()
