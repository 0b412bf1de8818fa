"""Kills `mnet prepare --archives` at random, and compares what comes out with a run that nobody disturbed.

python tests/scripts/prepare_kills.py DIR --kills 10    # DIR has the two archives, or a part of them
"""

import argparse
import hashlib
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

# More files than TFDS has for so few images, so that a kill finds some of them finished.
CODE = """
import sys
from mnet_jax.data.imagenet import facts
facts.SHARDS.update(train=24_000, validation=1_600)
from mnet_jax.commands.cli import main
sys.exit(main(sys.argv[1:]))
"""


def main() -> None:
    """Runs both and prints whether all files are equal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archives")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as place:
        commands = {name: command(args.archives, f"{place}/{name}") for name in ("whole", "killed")}
        subprocess.run(commands["whole"], check=True, capture_output=True)
        part = pathlib.Path(place, "killed", "imagenet2012", "5.1.0.incomplete")
        for number in range(1, args.kills + 1):
            wanted = finished(part) + draw.randrange(3)
            process = subprocess.Popen(commands["killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and finished(part) < wanted:
                time.sleep(0.005)
            time.sleep(0.4 * draw.random())
            if process.poll() is not None:
                raise SystemExit(f"it ended before kill {number}: give larger archives")
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"kill {number}: {finished(part)} files finished", flush=True)
        subprocess.run(commands["killed"], check=True, capture_output=True)
        whole, killed = (digests(pathlib.Path(place, name)) for name in commands)
        print(f"{len(whole)} files, {'equal' if whole == killed else 'DIFFERENT'}")


def command(archives: str, out: str) -> list[str]:
    """Returns the command line."""
    flags = ["--data", "imagenet2012", "--archives", archives, "--out", out, "--any_size"]
    return [sys.executable, "-c", CODE, "prepare", *flags]


def finished(part: pathlib.Path) -> int:
    """Returns how many files are finished."""
    return len(list(part.glob(".imagenet2012-*.json"))) if part.exists() else 0


def digests(root: pathlib.Path) -> dict[str, str]:
    """Returns a hash of each file by its path."""
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    main()
