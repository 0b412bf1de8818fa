"""Runs every command that the documents show and that needs no cloud, no gigabytes and no download, as it stands there.

    python tests/scripts/docs_commands.py [--list] [--only WORDS] [--wheel] [--jobs N] [DOCUMENT ...]

What counts as a command: each line of a ```bash block, and inline code that begins with one of PROGRAMS. The table
`.ci/commands.toml` says of each whether it is run here, or why not; `tests/test_docs_commands.py` holds it complete.
A document's commands run in a fresh copy of this checkout that has what the document assumes (`docs_workplace.py`):
photos in `photos`, a run in `runs/finetune`, weights under the name of the hub. `--wheel` is for an environment into
which the wheel was installed: a directory without a checkout, the `mnet` commands only, and what `python train.py
--config configs/NAME.py` does as `mnet train --config NAME`, as the README says.

It runs in the environment of the Python that runs it, through one laid over it: what the commands install (`pip
install -e ...`) goes into that and is gone afterwards.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / ".ci" / "commands.toml"
PROGRAMS = (
    *(
        "mnet",
        "python",
        "python3",
        "pip",
        "pytest",
        "ruff",
        "mypy",
        "uv",
        "tfds",
        "git",
        "bash",
        ".ci/run",
        ".ci/wheel",
    ),
    *("gcloud", "gsutil", "docker", "curl", "wget", "tar", "unzip", "xxd", "edgetpu_compiler", "adb", "npm", "npx"),
)
LIMIT = 600  # seconds a command
SHOWN = 60  # lines of a command that failed


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that a document shows."""

    document: str  # README.md, docs/photos.md
    line: int  # where it begins
    text: str  # as it stands there
    inline: bool  # in the text rather than in a block

    @property
    def key(self) -> str:
        """The command in one line, without comments: what the table calls it."""
        return normal(self.text)

    @property
    def mention(self) -> bool:
        """Whether inline code only names a command, or one of its options: `mnet predict --draw`."""
        return self.inline and re.fullmatch(r"mnet [\w-]+( --[\w-]+)?", self.key) is not None


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the table says of a document."""

    prepare: tuple[str, ...]  # what there is before its first command, names of `docs_workplace.THINGS`
    run: tuple[str, ...]  # keys, in the order in which they run
    listed: dict[str, str]  # key -> why it is not run here


def documents(root: pathlib.Path = ROOT) -> list[str]:
    """Returns README.md, CONTRIBUTING.md and every file of docs/."""
    return ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (root / "docs").glob("*.md"))]


def collect(document: str, text: str) -> list[Command]:
    """Returns the commands that `text` shows, in its order, each one once."""
    found = []

    def blank(match: re.Match) -> str:
        """Notes the commands of a block, and leaves as many empty lines."""
        first = text[: match.start()].count("\n") + 2
        if match[1] in ("bash", "sh", "shell", "console"):
            found.extend(Command(document, first + line, command, False) for line, command in split(match[2]))
        return "\n" * match[0].count("\n")

    rest = re.sub(r"^```(\w*)\n(.*?)^```$", blank, text, flags=re.DOTALL | re.MULTILINE)
    for match in re.finditer(r"`([^`]+)`", rest):
        words = normal(match[1]).split()
        if len(words) > 1 and words[0] in PROGRAMS:
            line = rest[: match.start()].count("\n") + 1
            found.append(Command(document, line, " ".join(match[1].split()), True))
    once = {}
    for command in sorted(found, key=lambda command: (command.inline, command.line)):
        once.setdefault(command.key, command)
    return sorted(once.values(), key=lambda command: command.line)


def split(block: str) -> list[tuple[int, str]]:
    """Returns the commands of a shell block with their first line; a quote or a \\ goes on in the next."""
    commands, held, first = [], "", 0
    for number, line in enumerate(block.splitlines()):
        if not held:
            first = number
        held = f"{held}\n{line}" if held else line
        try:
            words = shlex.split(held, comments=True)
        except ValueError:  # a quote is open
            continue
        if held.endswith("\\"):
            continue
        if words:
            commands.append((first, held))
        held = ""
    if held:
        raise ValueError(f"a command does not end: {held!r}")
    return commands


def normal(text: str) -> str:
    """Returns a command in one line without its comment."""
    words, quote = [], ""
    for word in text.replace("\\\n", " ").split():
        if word.startswith("#") and not quote:
            break
        words.append(word)
        for character in word:
            if character in "'\"":
                quote = "" if quote == character else quote or character
    return " ".join(words)


def read_table(path: pathlib.Path = TABLE) -> dict[str, Entry]:
    """Returns the table, document -> entry."""
    entries = {}
    for document, fields in tomllib.loads(path.read_text()).items():
        listed = {key: group["reason"] for group in fields.get("listed", ()) for key in group["commands"]}
        entries[document] = Entry(tuple(fields.get("prepare", ())), tuple(fields.get("run", ())), listed)
    return entries


# --- Running them ---


def main() -> int:
    """Runs what the table says; 1 if a command failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("documents", nargs="*", metavar="DOCUMENT", help="such as docs/photos.md (default: all)")
    parser.add_argument("--list", action="store_true", help="print every command and what becomes of it")
    parser.add_argument("--only", metavar="WORDS", help="run commands that contain these words")
    parser.add_argument("--wheel", action="store_true", help="without a checkout: `mnet` and nothing else")
    parser.add_argument("--jobs", type=int, default=1, help="documents at a time, each in a place of its own")
    args = parser.parse_args()
    table = read_table()
    if args.jobs > 1:
        return _at_once(args, table)
    shown = {document: collect(document, (ROOT / document).read_text()) for document in args.documents or documents()}
    if args.list:
        _print_all(shown, table)
        return 0
    import docs_workplace

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is removed
    failed, ran, start = [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mnet_docs_") as place:
        workplace = docs_workplace.Workplace(pathlib.Path(place), checkout=not args.wheel)
        for document, commands in shown.items():
            todo = _to_run(table.get(document), commands, args)
            if todo:
                workplace.begin(table[document].prepare)
            for command in todo:
                ran += 1
                if not _run(command, workplace):
                    failed.append(command)
    listed = sum(len(entry.listed) for document, entry in table.items() if document in shown)
    print(f"{ran} commands of the documents ran in {time.monotonic() - start:.0f} s, {len(failed)} failed; ", end="")
    print(f"{listed} are listed with a reason")
    for command in failed:
        print(f"failed: {command.document}:{command.line}: {command.key}")
    return 1 if failed else 0


def _at_once(args: argparse.Namespace, table: dict[str, Entry]) -> int:
    """Runs this script for `args.jobs` shares of the documents, with about as many commands each; 1 if one failed."""
    shares: list[list[str]] = [[] for _ in range(args.jobs)]
    sizes = {name: len(table[name].run) if name in table else 0 for name in args.documents or documents()}
    for name in sorted(sizes, key=sizes.get, reverse=True):
        min(shares, key=lambda share: sum(sizes[other] for other in share)).append(name)
    options = [*(("--only", args.only) if args.only else ()), *(("--wheel",) if args.wheel else ())]
    running = [subprocess.Popen([sys.executable, __file__, *options, *share]) for share in shares if share]
    return int(any([process.wait() for process in running]))


def _to_run(entry: Entry | None, commands: list[Command], args: argparse.Namespace) -> list[Command]:
    if entry is None:
        return []
    known = {command.key: command for command in commands}
    commands = [known[key] for key in entry.run if key in known and (not args.only or args.only in key)]
    return [found for found in map(_without_checkout, commands) if found] if args.wheel else commands


def _without_checkout(command: Command) -> Command | None:
    """Returns the command as one types it who has the wheel alone, or None."""
    text = re.sub(r"^python train\.py", "mnet train", command.text)
    text = re.sub(r"--config configs/(\w+)\.py", r"--config \1", text)
    return dataclasses.replace(command, text=text) if text.startswith("mnet ") else None


def _run(command: Command, workplace: "object") -> bool:
    """Runs a command as it stands, says how long it took, and prints the end of its output where it failed."""
    start, cpu = time.monotonic(), _cpu()
    log = workplace.place / "log.txt"
    with open(log, "wb") as output:
        try:
            code = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command.text],
                cwd=workplace.here,
                env=workplace.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"not done after {LIMIT} s"
    verdict = "ok" if code == 0 else f"FAILED ({code})"
    took = f"{time.monotonic() - start:6.1f} s ({_cpu() - cpu:.0f} s of CPU)"
    print(f"{verdict:4s} {took}  {command.document}:{command.line}: {command.key}", flush=True)
    if code != 0:
        for line in log.read_text(errors="replace").splitlines()[-SHOWN:]:
            print(f"     | {line}")
    return code == 0


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _print_all(shown: dict[str, list[Command]], table: dict[str, Entry]) -> None:
    for document, commands in shown.items():
        entry = table.get(document, Entry((), (), {}))
        for command in commands:
            state = "run" if command.key in entry.run else entry.listed.get(command.key)
            state = state or ("a name" if command.mention else "IN NO LIST")
            print(f"{document}:{command.line}: {command.key}\n    {state}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
