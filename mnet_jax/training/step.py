"""One update and one evaluation, as pure functions of (state, batch). `parallel.py` spreads them over devices."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax

from mnet_jax.models.dropout import Keys, example_keys
from mnet_jax.tasks.task import Task
from mnet_jax.training import layerwise
from mnet_jax.training.run_plan import num_parts
from mnet_jax.training.state import TrainState, Tree

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def _average(old: Tree, new: Tree, decay: jax.Array) -> Tree:
    return jax.tree.map(lambda a, b: a + (1.0 - decay) * (b - a), old, new)


def make_train_step(
    model: nn.Module,
    task: Task,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    config: ml_collections.ConfigDict,
    axis_name: str,
    image_size: tuple[int, int] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `step(state, batch) -> (state, metrics)` for one device among those of `axis_name`.

    With an `image_size` the network sees the augmented images in that size, instead of the batch's.

    The batch holds this device's share, [B, ...]. Gradients and batch statistics are means over the devices, so the
    new state is the same on all of them. Metrics are sums over the whole batch with their `count`, beside the scalars
    `objective` (the mean that was minimised), `gradient_norm` and `learning_rate`.

    Randomness: `fold_in(seed, step)`, then the example's position in the whole batch. Layers that draw for a batch as a
    whole, such as Flax's own `nn.Dropout` in a network of yours, get a key of the device.
    """
    ema_decay, ema_warmup = config.ema.decay, config.ema.warmup
    freeze = config.train.freeze

    def total(value: jax.Array) -> jax.Array:
        return jax.lax.psum(value, axis_name)

    def loss(
        learning: Tree, frozen: Tree, batch_stats: Tree, inputs: Tree, targets: Tree, keys: Keys, key: jax.Array
    ) -> tuple[jax.Array, tuple[Tree, Tree]]:
        variables = {"params": {**frozen, **learning}, "batch_stats": batch_stats, **keys}
        outputs, updated = model.apply(variables, inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return jnp.mean(task.loss(outputs, targets)), (updated["batch_stats"], outputs)

    def gradients(
        state: TrainState, inputs: Tree, targets: Tree, keys: Keys, key: jax.Array, parts: int
    ) -> tuple[Tree, jax.Array, Tree, Tree]:
        """Returns the mean gradient and loss over `parts` equal parts, one after the other, and the outputs of all.

        The gradient is of the layers that learn: nothing is computed backwards below the lowest of them.
        """
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        learning, frozen = layerwise.split(state.params, freeze, task.own_scopes)
        if parts == 1:
            (value, (batch_stats, outputs)), grads = value_and_grad(
                learning, frozen, state.batch_stats, inputs, targets, keys, key
            )
            return grads, value, batch_stats, outputs

        def part(carry: tuple, xs: tuple) -> tuple:
            batch_stats, grads, value = carry
            part_inputs, part_targets, part_keys, index = xs
            (part_value, (batch_stats, outputs)), part_grads = value_and_grad(
                learning,
                frozen,
                batch_stats,
                part_inputs,
                part_targets,
                part_keys,
                jax.random.fold_in(key, index),
            )
            return (batch_stats, jax.tree.map(jnp.add, grads, part_grads), value + part_value), outputs

        split = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), (inputs, targets, keys))
        zeros = jax.tree.map(jnp.zeros_like, learning)
        (batch_stats, grads, value), outputs = jax.lax.scan(
            part, (state.batch_stats, zeros, jnp.zeros(())), (*split, jnp.arange(parts))
        )
        grads, value = jax.tree.map(lambda x: x / parts, (grads, value))
        return grads, value, batch_stats, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        device, size = jax.lax.axis_index(axis_name), batch["mask"].shape[0]
        with jax.named_scope("augmentation"):  # the scopes' names are read by `mnet benchmark step-breakdown`
            positions = device * size + jnp.arange(size)
            inputs, targets = task.train_inputs(augment_key, batch, positions, total)
            if image_size is not None:
                shape = (inputs.shape[0], *image_size, inputs.shape[3])
                inputs = jax.image.resize(inputs, shape, "linear")  # each pixel a mean of those it covers
        keys, device_key = example_keys(dropout_key, positions), jax.random.fold_in(dropout_key, device)
        grads, value, batch_stats, outputs = gradients(
            state, inputs, targets, keys, device_key, num_parts(config, size)
        )
        grads, value, batch_stats = jax.lax.pmean((grads, value, batch_stats), axis_name)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            learning, frozen = layerwise.split(state.params, freeze, task.own_scopes)
            params = {**frozen, **optax.apply_updates(learning, updates)}
        completed, ema = state.step + 1, state.ema
        if ema is not None:
            decay = jnp.minimum(ema_decay, (1.0 + completed) / (10.0 + completed)) if ema_warmup else ema_decay
            with jax.named_scope("moving_averages"):
                averaged = _average(
                    {
                        "params": layerwise.split(ema["params"], freeze, task.own_scopes)[0],
                        "batch_stats": ema["batch_stats"],
                    },
                    {"params": layerwise.split(params, freeze, task.own_scopes)[0], "batch_stats": batch_stats},
                    decay,
                )
            ema = {"params": {**frozen, **averaged["params"]}, "batch_stats": averaged["batch_stats"]}
        metrics = {
            **jax.lax.psum(task.measure(outputs, batch).sums, axis_name),
            "objective": value,
            "gradient_norm": optax.tree.norm(grads),
            "learning_rate": schedule(state.step),
        }
        return TrainState(completed, params, batch_stats, opt_state, ema), metrics

    return step


def make_eval_step(model: nn.Module, task: Task, axis_name: str) -> Callable[[Tree, Batch], tuple[Metrics, Metrics]]:
    """Returns `step(variables, batch) -> (sums, rows)` for one device among those of `axis_name`.

    Sums are over the real examples of all devices; rows are those of all devices, [devices, B, ...], with the row
    "mask" beside them where there are any.
    """

    def step(variables: Tree, batch: Batch) -> tuple[Metrics, Metrics]:
        outputs = model.apply(variables, task.eval_inputs(batch), train=False)
        measured = task.measure(outputs, batch)
        rows = {"mask": batch["mask"], **measured.rows} if measured.rows else {}
        return jax.lax.psum(measured.sums, axis_name), jax.lax.all_gather(rows, axis_name)

    return step
