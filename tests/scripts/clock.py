"""Options and timing of the peers: each one is a script that prints one JSON document."""

import argparse
import json
import statistics
import time


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("train", "infer"))
    parser.add_argument("model")
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def report(run, args, **about):
    """Two calls to warm up, then calls for `seconds` (at least five); prints the median."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    run()
    times = []
    begin = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < args.seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    median = statistics.median(times)
    print(
        json.dumps(
            about
            | {
                "images_per_second": args.batch_size / median,
                "median_ms": 1e3 * median,
                "fastest_ms": 1e3 * min(times),
                "runs": len(times),
                "first_call_seconds": first,
            }
        )
    )
