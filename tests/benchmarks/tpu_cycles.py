"""Estimated cycles of a train step on a TPU, plain Flax and ours compiled in one run; no TPU is needed.

    python tests/benchmarks/tpu_cycles.py [--models v1,v2,v3_large,v3_small,v4_conv_medium] [--topology v5e:2x2]

Plain Flax is what everyone writes: `nn.Conv` with `feature_group_count`, `nn.BatchNorm`, the same layers in the same
order, bfloat16. Both go through the same `make_train_step` with RMSprop and averaged weights, without augmentation,
pmapped over the slice with `--batch` images a device. A line a net: cycles, their ratio, bytes accessed.
"""

import argparse
import os
import time

os.environ.update(TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import default
from mnet_jax.data import catalog
from mnet_jax.models import plans
from mnet_jax.models.layers import gelu, relu6
from mnet_jax.tools import tpu_program
from mnet_jax.training.build import build_model, build_task
from mnet_jax.training.config import derive
from mnet_jax.training.optimizer import make_optimizer, make_schedule
from mnet_jax.training.parallel import AXIS, Devices, describe_tpu
from mnet_jax.training.state import new_state
from mnet_jax.training.step import make_train_step

SIZES = {"v4_conv_medium": 256}
ACTIVATIONS = {
    "relu": nn.relu,
    "relu6": relu6,
    "gelu": gelu,
    "hard_swish": nn.hard_swish,
    "hard_sigmoid": nn.hard_sigmoid,
}


class Plain(nn.Module):
    """The convolutional nets of the family in plain Flax."""

    plan: plans.ModelPlan

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        plan = self.plan

        def conv(layer: plans.ConvPlan | None, x: jax.Array) -> jax.Array:
            if layer is None:
                return x
            if x.ndim == 2:
                x = nn.Dense(layer.features, use_bias=layer.bias and not layer.norm, dtype=jnp.bfloat16)(x)
            else:
                groups = layer.in_features if layer.depthwise else 1
                x = nn.Conv(
                    layer.features,
                    (layer.kernel, layer.kernel),
                    layer.stride,
                    feature_group_count=groups,
                    use_bias=layer.bias and not layer.norm,
                    dtype=jnp.bfloat16,
                )(x)
            if layer.norm:
                x = nn.BatchNorm(not train, momentum=plan.norm.decay, epsilon=plan.norm.epsilon, dtype=jnp.bfloat16)(x)
            return x if layer.activation is None else ACTIVATIONS[layer.activation](x)

        x = conv(plan.stem, x)
        for block in plan.blocks:
            y = x
            for layer in block.layers:
                if isinstance(layer, plans.SqueezeExcitePlan):
                    gate = conv(layer.expand, conv(layer.reduce, y.mean((1, 2))))
                    y = y * gate[:, None, None, :]
                else:
                    y = conv(layer, y)
            x = x + y if block.residual else y
        x = conv(plan.head, conv(plan.last_conv, x).mean((1, 2)))
        x = nn.Dropout(plan.dropout, deterministic=not train)(x)
        return nn.Dense(plan.classifier.features)(x)


def compile_step(model: nn.Module, config: object, devices: Devices) -> "jax.stages.Compiled":
    """The pmapped train step of either net, compiled."""
    info = catalog.published(config.data)
    plan, task = derive(config, info, devices.count), build_task(config, info)
    schedule, optimizer = make_schedule(config, plan), make_optimizer(config, plan)
    image = jnp.zeros((1, *plan.image_size, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    state = jax.eval_shape(lambda variables: new_state(variables, optimizer, ema=True), variables)
    shape = (devices.count, plan.device_batch)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, *plan.image_size, 3), np.uint8),
        "label": jax.ShapeDtypeStruct(shape, np.int32),
        "mask": jax.ShapeDtypeStruct(shape, np.float32),
    }
    step = devices.pmap(make_train_step(model, task, optimizer, schedule, config, AXIS), donate_state=True)
    return step.lower(state, batch).compile()


def main() -> None:
    """Prints a line a net as soon as both are compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="v3_small,v1,v2,v3_large,v4_conv_medium")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--only", choices=("plain", "ours"), help="one of the two")
    args = parser.parse_args()
    devices = Devices(described=describe_tpu(args.topology))
    for name in args.models.split(","):
        config = default.get_config()
        config.model.name, config.model.dtype = name, "bfloat16"
        config.data.image_size = SIZES.get(name, 224)
        config.train.batch_size, config.train.num_steps = args.batch * devices.count, 100_000
        ours = build_model(config, catalog.published(config.data), axis_name=AXIS)
        line, cycles = [f"{name:<16}{args.topology}"], {}
        for kind, model in (("plain", Plain(ours.plan)), ("ours", ours)):
            if args.only not in (None, kind):
                continue
            start = time.process_time()
            compiled = compile_step(model, config, devices)
            cycles[kind] = sum(operation.cycles for operation in tpu_program.operations(compiled.as_text()))
            moved = compiled.cost_analysis()["bytes accessed"]
            line.append(f"{kind} {cycles[kind] / 1e6:.2f} M cycles {moved / 1e9:.2f} GB")
            line.append(f"({time.process_time() - start:.0f} s of CPU)")
        if len(cycles) == 2:
            line.append(f"ratio {cycles['ours'] / cycles['plain']:.3f}")
        print("  ".join(line), flush=True)


if __name__ == "__main__":
    main()
