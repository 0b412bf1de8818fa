"""Prints how far another rounding of its weights moves the unfolded network's logits, beside what folding does.

Every weight moves by at most half a unit in its last place. A folding that moves the logits no more than that loses
nothing that float32 had.

  python tests/scripts/conditioning_table.py [MODEL ...]
"""

import pathlib
import sys

import jax
import numpy as np

from mnet_jax.deploy.interpret import interpret
from mnet_jax.tasks.classification.network import create_model

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "deploy"))
from networks import MEAN, STD, fold, normalized, random_images, random_variables

MODELS = ("v1", "v2", "v3_small", "v3_large")
DRAWS = 3


def main():
    print("| model | padding | folding | other rounding of the weights, three draws |\n|---|---|---|---|")
    for name in sys.argv[1:] or MODELS:
        for padding in ("same", "symmetric"):
            folding, roundings = measure(name, padding)
            shown = ", ".join(f"{error:.1e}" for error in roundings)
            print(f"| {name} | {padding} | {folding:.1e} | {shown} |", flush=True)


def measure(name, padding):
    model = create_model(name, padding=padding)
    variables, images = random_variables(model.plan), random_images(model.plan.image_size)
    apply, inputs = jax.jit(model.apply), normalized(images)
    expected = np.asarray(apply(variables, inputs))

    def error(found):
        return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()

    graph = fold(model.plan, variables, input="uint8", mean=MEAN, std=STD)
    folding = error(jax.jit(lambda images: interpret(graph, images))(images))
    return folding, [error(apply(rounded(variables, seed), inputs)) for seed in range(DRAWS)]


def rounded(variables, seed):
    generator = np.random.default_rng(seed)

    def move(value):
        return (value * (1 + generator.uniform(-1, 1, value.shape) * 2.0**-24)).astype(np.float32)

    return jax.tree.map(move, variables)


if __name__ == "__main__":
    main()
