"""What each quantisation costs: top-1 of a model in JAX and as TFLite, on real images. Needs the extra [export].

    python tests/scripts/quantization.py --weights FILE.h5 --data_dir DIR --split validation train

One row a format: top-1 on each split, how often it says the same class as JAX, size. `--checkpoint DIR` takes a run.
"""

import argparse

import jax
import numpy as np

from mnet_jax.commands import arguments
from mnet_jax.data import pipeline
from mnet_jax.data.annotations import Label
from mnet_jax.data.dataset import Dataset
from mnet_jax.deploy import tflite
from mnet_jax.deploy.export import build_graph
from mnet_jax.deploy.int8 import calibration, quantize, ranges, rewrite
from mnet_jax.trained import build_model, build_task


def predictions(model, images):
    """Class of each image, uint8 [N, H, W, 3], in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=2)
    interpreter.allocate_tensors()
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for image in images:
        interpreter.set_tensor(place, image[None])
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(result).argmax()))
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_model(parser)
    parser.add_argument("--data_dir")
    parser.add_argument("--split", nargs="+", required=True)
    parser.add_argument("--num_images", type=int, nargs="+", default=[256], help="to calibrate on")
    parser.add_argument("--int8_only", action="store_true")
    parser.add_argument("--estimators", nargs="+", default=ranges.ESTIMATORS)
    args = parser.parse_args()
    trained = arguments.load_model(args)
    config = trained.config
    if args.data_dir:
        config.data.data_dir = args.data_dir
    dataset = Dataset.open(config.data, {"label": Label()})
    images, labels, reference = {}, {}, {}
    model, task = build_model(config, trained.info), build_task(config, trained.info)
    run = jax.jit(lambda pixels: model.apply(trained.variables, task.eval_inputs({"image": pixels})).argmax(-1))
    for split in args.split:
        batches = list(pipeline.eval_batches(dataset, batch_size=50, split=split))
        real = np.concatenate([batch["mask"] for batch in batches]) > 0
        images[split] = np.concatenate([batch["image"] for batch in batches])[real]
        labels[split] = np.concatenate([batch["label"] for batch in batches])[real]
        reference[split] = np.concatenate([run(batch["image"]) for batch in batches])[real]

    def show(name, found, size=None):
        cells = [f"{100 * np.mean(found[split] == labels[split]):.2f} %" for split in args.split]
        cells += [f"{100 * np.mean(found[split] == reference[split]):.1f} %" for split in args.split]
        print(f"| {name} | {' | '.join(cells)} | {'' if size is None else f'{size / 1e6:.2f} MB'} |", flush=True)

    def check(name, data):
        show(name, {split: predictions(data, images[split]) for split in args.split}, len(data))

    def calibrate(number):
        return lambda: calibration.batches(trained, graph.input_shape[:2], num=number)

    heads = [f"top-1, {len(labels[s])} of {s}" for s in args.split] + [f"same class as JAX, {s}" for s in args.split]
    print(f"| format | {' | '.join(heads)} | size |\n|{'---|' * (len(heads) + 2)}")
    show("JAX, float32", reference)
    fixed = {"input": "uint8", "output": "logits", "image_size": None, "date": None}
    for kind in () if args.int8_only else ("none", "float16", "dynamic"):
        graph, about = build_graph(trained, quantize=kind, **fixed)
        check(f"TFLite, {'float32' if kind == 'none' else kind}", tflite.convert(graph, about, quantize=kind))
    graph, about = build_graph(trained, quantize="int8", **fixed)
    if ranges.learnt(rewrite.rewrite(graph), trained.variables["batch_stats"]):
        check(
            "TFLite, int8, ranges learnt in training",
            quantize.int8_model(graph, about, list, batch_stats=trained.variables["batch_stats"]),
        )
    for estimator in args.estimators:
        for number in args.num_images:
            data = quantize.int8_model(graph, about, calibrate(number), estimator=estimator)
            check(f"TFLite, int8, {estimator} of {number} images", data)
    data = quantize.int8_model(graph, about, calibrate(args.num_images[0]), nearest=True)
    check(f"TFLite, int8, mse of {args.num_images[0]} images, weights to the nearest", data)


if __name__ == "__main__":
    main()
