"""Our segmenters beside torchvision's: the same weights on the same images, or seconds in turn.

python tests/scripts/compare_masks.py FOLDER           after peer_torch_masks.py FOLDER; largest differences
python tests/scripts/compare_masks.py train lraspp --image_size 512 --batch_size 4        as peer_torch_masks.py
python tests/scripts/compare_masks.py train lraspp --peer PYTHON --rounds 3 ...           both in turn, and the quotient
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import clock
import numpy as np

HERE = pathlib.Path(__file__).parent


def compare(folder):
    import jax

    from mnet_jax.models.ops.bilinear import upsample
    from mnet_jax.pretrained.load import load_pretrained
    from mnet_jax.tasks.segmentation.network import create_segmenter

    theirs = np.load(folder / "outputs.npz")
    for name in ("lraspp", "deeplab"):
        trained = load_pretrained(folder / f"{name}.pth")
        network = create_segmenter(f"{name}_v3_large", num_classes=trained.info.num_classes)
        for key in (key for key in theirs if key.startswith("images_")):
            images = theirs[key]
            outputs = jax.jit(lambda v, x, n=network: n.apply(v, x, auxiliary=True))(trained.variables, images)
            for what, x in outputs.items():
                ours = np.asarray(upsample(x, images.shape[1:3], align_corners=False))
                wanted = theirs[f"{name}_{images.shape[1]}_{'out' if what == 'classes' else 'aux'}"]
                difference = np.abs(ours - wanted).max() / np.abs(wanted).max()
                same = (ours.argmax(-1) == wanted.argmax(-1)).mean()
                print(f"{name} {images.shape[1:3]} {what}: relative difference {difference:.1e}, same class {same:.5%}")


def time():
    import jax
    import jax.numpy as jnp
    import optax

    from mnet_jax import runtime
    from mnet_jax.models.ops.bilinear import upsample
    from mnet_jax.models.variables import initial_variables
    from mnet_jax.tasks.segmentation.network import create_segmenter

    runtime.keep_memory()  # as train.py does
    args = clock.options()
    network = create_segmenter(f"{args.model}_v3_large", num_classes=21)
    variables = initial_variables(network.list_variables(), 0)
    size = (args.image_size, args.image_size)
    images = jax.random.normal(jax.random.key(1), (args.batch_size, *size, 3))
    labels = jax.random.randint(jax.random.key(2), (args.batch_size, *size), 0, 21)
    optimizer = optax.sgd(0.001, 0.9)

    def loss(params, statistics, key):
        outputs, changed = network.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        total = 0.0
        for what, x in outputs.items():
            logits = upsample(x, size, align_corners=network.head_plan.align_corners)
            cross = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            total += (0.5 if what == "auxiliary" else 1.0) * cross
        return total, changed["batch_stats"]

    def train(state, key):
        params, statistics, moments = state
        grads, statistics = jax.grad(loss, has_aux=True)(params, statistics, key)
        updates, moments = optimizer.update(grads, moments)
        return optax.apply_updates(params, updates), statistics, moments

    def infer(variables, images):
        logits = upsample(network.apply(variables, images)["classes"], size, align_corners=False)
        return jnp.argmax(logits, -1)

    if args.mode == "infer":
        step = jax.jit(infer)
        clock.report(lambda: step(variables, images).block_until_ready(), args, peer="ours", model=args.model)
        return
    step = jax.jit(train, donate_argnums=0)
    state = [(variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))]

    def run():
        state[0] = jax.block_until_ready(step(state[0], jax.random.key(3)))

    clock.report(run, args, peer="ours", model=args.model)


def in_turn(arguments):
    peer, rounds = (arguments.pop(arguments.index(name) + 1) for name in ("--peer", "--rounds"))
    arguments = [argument for argument in arguments if argument not in ("--peer", "--rounds")]
    found = {"torchvision": [], "ours": []}
    for _ in range(int(rounds)):
        for who, python, script in (
            ("torchvision", peer, "peer_torch_masks.py"),
            ("ours", sys.executable, "compare_masks.py"),
        ):
            command = [python, str(HERE / script), *arguments]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            found[who].append(json.loads(lines[-1])["median_ms"])
    middle = {who: statistics.median(times) for who, times in found.items()}
    print(json.dumps({"median_ms": found, "times_faster": round(middle["torchvision"] / middle["ours"], 2)}))


if __name__ == "__main__":
    if "--peer" in sys.argv:
        in_turn(sys.argv[1:])
    else:
        compare(pathlib.Path(sys.argv[1])) if len(sys.argv) == 2 else time()
