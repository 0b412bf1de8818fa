"""Injects the faults of tests/training/faults.py and 50 flipped bits into a saved run: docs/reliability.md's table.

python tests/scripts/fault_table.py
"""

import pathlib
import re
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "training"))
import faults  # the one beside the tests

from mnet_jax.training import checkpoint, saved, setup
from mnet_jax.training.reporting.run_files import read_rows


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        faults.make_run(place / "whole")
        whole = checkpoint.newest_whole(str(place / "whole"), print)
        print("| fault | what the run says | steps lost |\n|---|---|---|")
        for name, damage in {**faults.NEWEST, **faults.OTHER, **faults.REFUSED}.items():
            said, lost = inject(place, damage)
            print(f"| {name} | {said} | {lost} |")
        outcomes = [flipped(place, seed, whole) for seed in range(50)]
        counts = {outcome: outcomes.count(outcome) for outcome in ("found", "harmless", "silent")}
        print(f"\nOf {len(outcomes)} bits flipped anywhere: " + ", ".join(f"{n} {what}" for what, n in counts.items()))


def copy(place: pathlib.Path) -> pathlib.Path:
    shutil.rmtree(place / "run", ignore_errors=True)
    return pathlib.Path(shutil.copytree(place / "whole", place / "run"))


def inject(place: pathlib.Path, damage: object) -> tuple[str, str]:
    """Returns the line that a start says, and how many steps are lost."""
    run, lines = copy(place), []
    damage(run)
    try:
        found = checkpoint.newest_whole(str(run), lines.append)
        setup._own_config(str(run), found, lines.append)
        read_rows(run / "metrics.jsonl")
        lost = str(30 - found.step)
    except ValueError as error:
        lines, lost = [f"refused: {error}"], "none: nothing is touched"
    said = " ".join(lines).replace(f"{run}", "RUN").replace("|", "\\|") or "nothing: it goes on"
    return re.sub(r"[0-9a-f]{32}", "FILE", said), lost


def flipped(place: pathlib.Path, seed: int, whole: saved.Saved) -> str:
    run = copy(place)
    faults.flip_somewhere(faults.checkpoint(run), seed)
    found = checkpoint.newest_whole(str(run), lambda line: None)
    if found.step != 30:
        return "found"
    same = all(found.arrays[name].tobytes() == array.tobytes() for name, array in whole.arrays.items())
    return "harmless" if same and found.about["metrics"] == whole.about["metrics"] else "silent"


if __name__ == "__main__":
    main()
