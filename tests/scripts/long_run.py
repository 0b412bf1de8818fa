"""Trains 20,000 steps of a small network with saves and evaluations: memory, open files and the time of a step.

python tests/scripts/long_run.py --place DIR    # the same command again goes on; --plot FILE.png draws all of it
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

import small_run

STEPS = 20_000
FIELDS = {
    "train.num_steps": STEPS,
    "eval.every_steps": 500,
    "checkpoint.every_steps": 250,
    "log.every_steps": 50,
    "data.eval_split": "test[:64]",
    "eval.batch_size": 64,
}
_SECONDS = 0.5  # between two looks at the process


def main() -> None:
    """Runs to the end, writes what was measured, and prints what is compared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=pathlib.Path, required=True)
    parser.add_argument("--plot", type=pathlib.Path)
    args = parser.parse_args()
    place = args.place.absolute()
    place.mkdir(parents=True, exist_ok=True)
    measured = place / "measured.jsonl"
    if small_run.last_step(place / "long") < STEPS:
        run(place, measured)
    looks = [json.loads(line) for line in measured.read_text().splitlines()]
    steps = [
        (row["step"], row["images_per_second"]) for row in small_run.rows(place / "long") if row["kind"] == "train"
    ]
    times = [(step, 1000 * small_run.FIELDS["train.batch_size"] / speed) for step, speed in steps]
    early, late = (around(looks, "rss_mib", step) for step in (2_000, STEPS))
    print(f"memory: {early:.0f} MiB at step 2,000, {late:.0f} at step 20,000: {100 * (late / early - 1):+.2f} %")
    early, late = (around(looks, "files", step) for step in (2_000, STEPS))
    print(f"open files: {early:.0f} at step 2,000, {late:.0f} at step 20,000")
    early, late = (
        statistics.median(ms for step, ms in times if low < step <= low + 2_000) for low in (2_000, STEPS - 2_000)
    )
    print(f"a step: {early:.2f} ms after step 2,000, {late:.2f} at the end: {100 * (late / early - 1):+.1f} %")
    early, late = (processor_ms(looks, low) for low in (2_000, STEPS - 2_000))
    print(f"its processor: {early:.2f} ms after step 2,000, {late:.2f} at the end: {100 * (late / early - 1):+.1f} %")
    print(f"{len({look['process'] for look in looks})} processes, {len(looks)} looks at them")
    if args.plot:
        plot(looks, times, args.plot)


def run(place: pathlib.Path, measured: pathlib.Path) -> None:
    """Starts the run, or goes on with it, and writes a line every half second."""
    line, environment = small_run.command(place, "long", FIELDS)
    with open(place / "long.err", "ab") as errors, open(measured, "a") as out:
        process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while process.poll() is None:
                time.sleep(_SECONDS)
                step = small_run.last_step(place / "long")
                try:
                    pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                    used = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
                    files = len(os.listdir(f"/proc/{process.pid}/fd"))
                except (OSError, IndexError):
                    break
                rss = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
                look = {"process": process.pid, "step": step, "rss_mib": rss, "files": files}
                look["processor"] = sum(map(int, used)) / os.sysconf("SC_CLK_TCK")
                print(json.dumps(look), file=out, flush=True)
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise SystemExit(f"it ended with {process.returncode}: see {place / 'long.err'}")


def around(looks: list[dict], name: str, step: int) -> float:
    """Returns the median of the thousand steps that end there."""
    return statistics.median(look[name] for look in looks if step - 1_000 < look["step"] <= step)


def processor_ms(looks: list[dict], low: int) -> float:
    """Returns milliseconds of all cores that a step takes in two thousand steps, saves and evaluations included."""
    first, *_, last = (look for look in looks if low < look["step"] <= low + 2_000)
    return 1000 * (last["processor"] - first["processor"]) / (last["step"] - first["step"])


def plot(looks: list[dict], times: list[tuple[int, float]], path: pathlib.Path) -> None:
    """Draws memory, open files and the time of a step over the steps."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(7, 6), sharex=True, layout="constrained")
    for axis, name, label in ((axes[0], "rss_mib", "memory, MiB"), (axes[1], "files", "open files")):
        axis.plot([look["step"] for look in looks], [look[name] for look in looks], linewidth=1)
        axis.set_ylabel(label)
    axes[2].plot([step for step, _ in times], [ms for _, ms in times], linewidth=0.6)
    axes[2].set_ylabel("a step, ms")
    axes[2].set_xlabel("step")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
