"""Estimated cycles of a train step on a TPU, plain Flax and ours compiled in one run; no TPU is needed.

    python tests/scripts/tpu_cycles.py [--models v1,v2,v3_large,v3_small,v4_conv_medium] [--topology v5e:2x2]

Plain Flax is what everyone writes: `nn.Conv` with `feature_group_count`, `nn.BatchNorm`, the same layers in the same
order, bfloat16, with the compiler's own options. Both go through the step that `mnet tpu-check` compiles, with RMSprop
and averaged weights, without augmentation, pmapped over the slice with `--batch` images a device. `--kinds
plain,tuned,ours` compiles plain Flax once more with the compiler's options that we set (training/libtpu.py),
`--blocks N` only stem, first N blocks, mean and classifier; `--from_block N` takes only block N (from 0) and those
after it, behind a stem that gives them a map of their size; `--output_stride 16` dilates the last blocks as
torchvision's segmenters do. A line a net: cycles, bytes accessed, and our cycles over those of each other kind.
"""

import argparse
import dataclasses
import os
import time

os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import jax.numpy as jnp

from mnet_jax import schema
from mnet_jax.commands import tpu_check
from mnet_jax.data import catalog
from mnet_jax.measuring import tpu
from mnet_jax.models import plans
from mnet_jax.models.dilation import dilated
from mnet_jax.models.layers import gelu, relu6
from mnet_jax.runtime import VMEM_LIMIT
from mnet_jax.trained import build_model
from mnet_jax.training.parallel import AXIS, DescribedDevices, describe_tpu, uncached_compilation

# KiB, the compiler's own: an option of one compilation goes before what `describe_tpu` sets for the process.
DEFAULT = {VMEM_LIMIT: 16 * 1024}
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
                    kernel_dilation=layer.dilation,
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


def cut(plan: plans.ModelPlan, num_blocks: int) -> plans.ModelPlan:
    """The net without its later blocks and the layers between these and the classifier."""
    blocks = plan.blocks[:num_blocks]
    classifier = dataclasses.replace(plan.classifier, in_features=blocks[-1].features)
    return dataclasses.replace(plan, blocks=blocks, last_conv=None, head=None, classifier=classifier)


def tail(plan: plans.ModelPlan, first: int, image_size: int) -> tuple[plans.ModelPlan, int]:
    """Returns the net without its blocks before `first`, and the image size that gives the others maps of their size.

    The first of them has an expansion, which reads the stem's features.
    """
    size = plan.stem.output_size((image_size, image_size))
    for block in plan.blocks[:first]:
        size = block.output_size(size)
    block = plan.blocks[first]
    expand = dataclasses.replace(block.expand, in_features=plan.stem.features)
    block = dataclasses.replace(block, in_features=plan.stem.features, residual=False, expand=expand)
    return dataclasses.replace(plan, blocks=(block, *plan.blocks[first + 1 :])), size[0] * plan.stem.stride


def main() -> None:
    """Prints a line a net as soon as it is compiled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="v3_small,v1,v2,v3_large,v4_conv_medium")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--kinds", default="plain,ours", help="of plain, tuned, ours")
    parser.add_argument("--image_size", type=int, default=None, help="pixels of a side (default: the model's own)")
    parser.add_argument("--output_stride", type=int, default=32, choices=(8, 16, 32))
    parser.add_argument("--blocks", type=int, default=None, metavar="N", help="only so many (default: all)")
    parser.add_argument("--from_block", type=int, default=0, metavar="N", help="without those before (default: all)")
    args = parser.parse_args()
    devices = DescribedDevices(describe_tpu(args.topology))
    for name in args.models.split(","):
        config = schema.get_config()
        config.model.name, config.model.dtype = name, "bfloat16"
        config.data.image_size = args.image_size or SIZES.get(name, 224)
        config.train.batch_size, config.train.num_steps = args.batch * devices.count, 100_000
        info = catalog.published(config.data)
        ours = build_model(config, info, axis_name=AXIS)
        ours = ours.clone(plan=dilated(ours.plan, args.output_stride, "new"))
        if args.from_block:
            plan, config.data.image_size = tail(ours.plan, args.from_block, config.data.image_size)
            ours = ours.clone(plan=plan)
        if args.blocks is not None:
            ours = ours.clone(plan=cut(ours.plan, args.blocks))
        line, cycles = [f"{name:<16}{args.topology}"], {}
        for kind in args.kinds.split(","):
            start = time.process_time()
            model, options = ours if kind == "ours" else Plain(ours.plan), DEFAULT if kind == "plain" else {}
            with uncached_compilation():
                compiled = tpu_check.lower(config, info, devices, model).compile(compiler_options=options)
            cycles[kind] = sum(operation.cycles for operation in tpu.operations(compiled.as_text()))
            moved = compiled.cost_analysis()["bytes accessed"]
            line.append(f"{kind} {cycles[kind] / 1e6:.2f} M cycles {moved / 1e9:.2f} GB")
            line.append(f"({time.process_time() - start:.0f} s of CPU)")
        us = cycles.pop("ours", None)
        line += [f"ours / {kind} {us / peer:.3f}" for kind, peer in cycles.items() if us is not None]
        print("  ".join(line), flush=True)


if __name__ == "__main__":
    main()
