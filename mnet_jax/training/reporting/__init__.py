"""What a person sees of a run: progress, train.log, metrics.jsonl, TensorBoard files, curves.png and a summary.

A row of metrics.jsonl is one JSON object on one line:

    {"kind": "train" or "eval", "step": completed updates, "epoch": float, "time": Unix seconds,
     "elapsed": seconds up to here over all starts of the run, ...the metrics}

Accuracies are shares in 0..1. A number that is not finite is written as null, so that every line is strict JSON.
"""
