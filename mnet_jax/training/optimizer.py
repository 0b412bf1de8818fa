"""The learning rate as a function of the step, and the optimiser as the papers' code has it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from mnet_jax.training import layerwise
from mnet_jax.training.run_plan import RunPlan


def make_schedule(config: ml_collections.ConfigDict, run_plan: RunPlan) -> optax.Schedule:
    """The learning rate of the update that follows `step` completed ones.

    Warm-up is linear, its first update has a rate above zero; the schedule proper counts from the end of the warm-up.
    """
    section = config.schedule

    def after_warmup(step: jax.Array) -> jax.Array:
        if section.name == "constant":
            return jnp.ones_like(step)
        if section.name == "cosine":
            progress = jnp.clip(step / (run_plan.total_steps - run_plan.warmup_steps), 0.0, 1.0)
            return section.end_factor + (1.0 - section.end_factor) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        if section.name == "poly":
            left = 1.0 - step / (run_plan.total_steps - run_plan.warmup_steps)
            return jnp.clip(left, 0.0, 1.0) ** section.power
        decays = step / run_plan.decay_steps
        return section.decay_rate ** (jnp.floor(decays) if section.staircase else decays)

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        if not run_plan.warmup_steps:
            return run_plan.peak_lr * after_warmup(step)
        warm = (step + 1.0) / run_plan.warmup_steps
        return run_plan.peak_lr * jnp.where(
            step < run_plan.warmup_steps, warm, after_warmup(step - run_plan.warmup_steps)
        )

    return schedule


def decay_mask(params: Any, *, depthwise: bool, norms: bool = False) -> Any:
    """True for the leaves that weight decay acts on: kernels, and on request depthwise kernels, norms and biases.

    Layer scales never have any. slim's mobilenet_v1.py decays convolution kernels only, without the depthwise ones
    (`regularize_depthwise=False`); torchvision's detectors decay all parameters.
    """
    decayed = {"kernel"} | ({"depthwise_kernel"} if depthwise else set()) | ({"scale", "bias"} if norms else set())
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key in decayed, params)


def make_optimizer(
    config: ml_collections.ConfigDict, schedule: optax.Schedule, own_scopes: Sequence[str]
) -> optax.GradientTransformation:
    """Returns clipping, weight decay and the update rule of `config.optimizer`, with the rate of `schedule`.

    RMSprop has TensorFlow's form: epsilon inside the root, the average of squares starts at 1 (the slot of
    tf.train.RMSPropOptimizer is initialised with ones), and the learning rate goes into the momentum accumulator.
    In optax the first two are not the defaults.

    With `train.freeze` gradients, updates and state are of the layers that learn only (`layerwise.only_learning`);
    `optimizer.backbone_lr` and `optimizer.layer_decay` scale the learning rate layer by layer.
    """
    rule = _rule(config, schedule)
    section = config.optimizer
    if section.backbone_lr != 1.0 or section.layer_decay != 1.0:
        factors = layerwise.scale_by_layer(own_scopes, backbone_lr=section.backbone_lr, layer_decay=section.layer_decay)
        rule = optax.chain(rule, factors)
    return layerwise.only_learning(rule, config.train.freeze, own_scopes)


def _rule(config: ml_collections.ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    section = config.optimizer

    def mask(params: Any) -> Any:
        return decay_mask(params, depthwise=section.decay_depthwise, norms=section.decay_norms)

    steps = [] if section.clip_norm is None else [optax.clip_by_global_norm(section.clip_norm)]
    if section.name == "adamw":
        steps.append(
            optax.adamw(
                schedule, section.beta1, section.beta2, section.epsilon, weight_decay=section.weight_decay, mask=mask
            )
        )
        return optax.chain(*steps)
    if section.weight_decay:
        steps.append(optax.add_decayed_weights(section.weight_decay, mask))
    momentum = section.momentum or None
    if section.name == "rmsprop":
        rule = optax.rmsprop(
            schedule, section.decay, section.epsilon, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum
        )
    else:
        rule = optax.sgd(schedule, momentum, nesterov=section.nesterov and momentum is not None)
    return optax.chain(*steps, rule)
