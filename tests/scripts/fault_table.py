"""Injects every fault of tests/reliability and 50 flipped bits: the table of docs/reliability.md, written into it.

python tests/scripts/fault_table.py                   # all of them
python tests/scripts/fault_table.py --only PATTERN    # only those whose names match: their rows are written anew
"""

import argparse
import os
import pathlib
import re
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.extend(
    str(pathlib.Path(__file__).resolve().parents[1] / folder)
    for folder in ("reliability", "training", "data", "deploy", "pretrained")
)

import all_faults
import fault  # beside the tests

MOST = 420  # letters of what the user sees that the page has
PAGE = fault.ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: tests/scripts/fault_table.py writes from here -->\n", "<!-- to here -->\n"


def main() -> None:
    """Writes the table, or some of its rows, into the page; what is not as it should be is told, and not written."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="a pattern of names")
    args = parser.parse_args()
    chosen = [one for one in all_faults.FAULTS if re.search(args.only, one.name)]
    rows, wrong = ({} if not args.only else written_rows()), 0
    with tempfile.TemporaryDirectory() as place:
        things = fault.Things(pathlib.Path(place))
        for number, one in enumerate(chosen):
            row, good = inject(one, things, pathlib.Path(place, f"fault_{number}"))
            wrong += not good
            print(row if good else f"WRONG {row}", flush=True)
            if good:
                rows[fault.tidy(one.name)] = row
        if not args.only:
            counts = flipped_bits(things, pathlib.Path(place))
            said = (
                f"Of 50 single bits flipped anywhere in a checkpoint {counts['found']} were found, "
                f"{counts['harmless']} harmless (outside of what is read) and {counts['silent']} silent."
            )
        else:
            said = re.search(r"Of 50 single bits .*", PAGE.read_text())[0]
    print(f"{len(chosen)} faults, {wrong} of them not as they should be. {said}")
    write(said, rows)


def written_rows() -> dict[str, str]:
    """Returns the rows that the page has, by their faults."""
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    return {line[2:].split(" | ")[0]: line for line in table.splitlines() if line.startswith("| ")}


def write(said: str, rows: dict[str, str]) -> None:
    """Writes the table into the page, by sections."""
    names = [fault.tidy(one.name) for one in all_faults.FAULTS]
    lines = [f"{sum(name in rows for name in names)} faults, injected one by one. {said}", ""]
    for section, faults in all_faults.SECTIONS.items():
        lines += [f"### {section}", "", "| fault | what the user sees | lost |", "|---|---|---|"]
        lines += [rows[name] for name in (fault.tidy(one.name) for one in faults) if name in rows] + [""]
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(before + BEGIN + "\n".join(lines).rstrip() + "\n\n" + END + after)


def inject(one: fault.Fault, things: fault.Things, place: pathlib.Path) -> tuple[str, bool]:
    """Returns the row of a fault, and whether it is as it should be."""
    place.mkdir()
    try:
        found = one.inject(things, place)
    except Exception as error:  # the others are injected all the same
        return f"| {fault.tidy(one.name)} | {error!r} | |", False
    line = fault.tidy(found.line, place, things.place)
    line = line if len(line) <= MOST else f"{line[:MOST]} ..."
    good = re.search(one.said, found.line) and found.lost.startswith(one.lost) and "Traceback" not in found.said
    if not good:
        print(found.said[-4000:])
    return f"| {fault.tidy(one.name)} | {line} | {found.lost} |", bool(good)


def flipped_bits(things: fault.Things, place: pathlib.Path) -> dict[str, int]:
    """Returns how many of 50 flipped bits were found, harmless and silent."""
    import shutil

    import faults

    from mnet_jax.training import checkpoint

    whole = checkpoint.newest_whole(str(things.run), print)
    counts = {"found": 0, "harmless": 0, "silent": 0}
    for seed in range(50):
        run = pathlib.Path(shutil.copytree(things.run, place / f"flipped_{seed}"))
        faults.flip_somewhere(faults.checkpoint(run), seed)
        found = checkpoint.newest_whole(str(run), lambda line: None)
        same = all(found.arrays[name].tobytes() == array.tobytes() for name, array in whole.arrays.items())
        same = same and found.about["metrics"] == whole.about["metrics"]
        counts["found" if found.step != 30 else "harmless" if same else "silent"] += 1
    return counts


if __name__ == "__main__":
    main()
