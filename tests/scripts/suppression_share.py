"""The share of suppression in a detector's inference at batch 1: the network alone, and with its detections.

    PYTHONPATH=. python tests/scripts/suppression_share.py [DETECTOR]

Fresh weights; the logits are made as peaked as those of a trained network by a bias on the background. Both programs
run in turn; the figures are the fastest and the median of 300, and the share is of the medians: that of the differences
between neighbours, which other work on the machine disturbs less, over that of the whole.
"""

import sys
import time

import jax
import numpy as np

from mnet_jax import schema
from mnet_jax.data.catalog import DatasetInfo
from mnet_jax.models.heads.tables import find_detector
from mnet_jax.models.variables import initial_variables
from mnet_jax.trained import build_model, build_task


def main(name: str) -> None:
    """Prints milliseconds."""
    config = schema.get_config()
    config.update_from_flattened_dict({**find_detector(name).settings, "data.eval_crop": 1.0})
    info = DatasetInfo.made_up(90)
    task = build_task(config, info)
    network = build_model(config, info, task=task)
    variables = jax.device_put(initial_variables(network.list_variables(), 0))
    rng = np.random.default_rng(0)
    size = task.image_size
    image = jax.device_put(rng.integers(0, 256, (1, *size, 3), np.uint8))
    peaks = jax.device_put(rng.normal(size=(1, len(task.anchors), 91)).astype(np.float32) * 3)
    peaks = peaks.at[..., 0].add(6.0) if task.head.scores == "softmax" else peaks - 6.0

    def forward(image: jax.Array) -> dict[str, jax.Array]:
        outputs = network.apply(variables, task.eval_inputs({"image": image}), train=False)
        return {**outputs, "classes": outputs["classes"] + peaks}

    programs = {"network": jax.jit(forward), "with detections": jax.jit(lambda image: task.detect(forward(image)))}
    found = jax.block_until_ready(programs["with detections"](image))
    above = int((task.scores(jax.jit(forward)(image)) > task.suppression.score_threshold).sum())
    print(f"{name}: {above:,} candidates, {int(found['count'][0])} detections")
    times: dict[str, list[float]] = {which: [] for which in programs}
    for _ in range(300):
        for which, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(image))
            times[which].append(1e3 * (time.perf_counter() - start))
    for which, values in times.items():
        print(f"{which:16} {min(values):7.2f} ms at best, {np.median(values):7.2f} in the middle")
    alone, whole = (np.array(values) for values in times.values())
    print(f"share of suppression {100 * np.median(whole - alone) / np.median(whole):.1f} %")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["ssdlite320_v3_large"])
