"""Every command that the documents show is run by CI or listed with a reason; no table entry outlives its command."""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "scripts"))
import docs_commands
import docs_workplace

from mnet_jax.commands import cli
from mnet_jax.training import command as training

ROOT = docs_commands.ROOT
SHOWN = {name: docs_commands.collect(name, (ROOT / name).read_text()) for name in docs_commands.documents()}
TABLE = docs_commands.read_table()


def tabled(document):
    """All keys of a document's entry, with repetitions."""
    entry = TABLE.get(document)
    return [*entry.run, *entry.listed] if entry else []


@pytest.mark.parametrize("document", SHOWN)
def test_every_command_is_run_or_listed(document):
    known = tabled(document)
    missing = [f"{c.line}: {c.key}" for c in SHOWN[document] if not c.mention and c.key not in known]
    assert not missing, f"{document} shows commands that are not in {docs_commands.TABLE.name}: {missing}"


def test_what_is_listed_is_shown_and_once():
    assert set(TABLE) <= set(SHOWN)
    for document in TABLE:
        shown = [command.key for command in SHOWN[document]]
        gone = [key for key in tabled(document) if key not in shown]
        assert not gone, f"{document} does not show these any more: {gone}"
        twice = {key for key in tabled(document) if tabled(document).count(key) > 1}
        assert not twice, f"both run and listed: {twice}"
        assert set(TABLE[document].prepare) <= docs_workplace.THINGS.keys()


def test_reasons_name_what_exists():
    """A reason that points to a test or to a document's command is held to it."""
    for document, entry in TABLE.items():
        for key, reason in entry.listed.items():
            assert len(reason.split()) > 2, (document, key)
            for file in re.findall(r"tests/[\w/]+\.py", reason):
                assert (ROOT / file).exists(), f"{document}: {reason}"
            for other in re.findall(r"run in ((?:docs/)?\w+\.md)", reason):
                assert key in TABLE[other].run, f"{other} does not run {key}"


def test_a_command_that_is_only_named_exists_with_its_option(capsys):
    """`mnet predict --draw` in the text is no command to run: its name and its option must exist all the same."""
    for commands in SHOWN.values():
        for command in commands:
            if command.mention and command.key.split()[1:2] != ["--help"]:
                name, *option = command.key.split()[1:]
                assert name in cli.COMMANDS, f"{command.document}:{command.line}: {command.key}"
                with pytest.raises(SystemExit):
                    cli._parse([name, "--help"])
                text = capsys.readouterr().out
                assert not option or name == "train" or option[0] in text, f"{command.document}:{command.line}"


def test_commands_that_are_not_run_would_be_understood(monkeypatch):
    """The arguments of each `mnet` and `train.py` command are read, whether or not CI can run what follows."""
    monkeypatch.chdir(ROOT)
    read = 0
    for entry in TABLE.values():
        for key, reason in entry.listed.items():
            words = shlex.split(key)
            if "NAME" in key or "part of a command" in reason or {"&&", "|", ">"} & set(words):
                continue
            if words[:2] == ["python", "train.py"] or words[:2] == ["mnet", "train"]:
                training.parse(words[2:])
            elif words[0] == "mnet":
                _, args = cli._parse(words[1:])
                assert isinstance(args, argparse.Namespace)
            else:
                continue
            read += 1
    assert read > 3


# --- The collector ---


def test_commands_are_found_as_they_stand():
    text = """
Say `mnet models` or `mnet predict
--checkpoint RUN photo.jpg`; `runs/digits` and `mnet` are no commands.

```bash
# a comment
pip install -e '.[test]' && pytest   # 'quoted'
mnet export --out a \\
    --format tflite

ssh tpu --command="
  cd mnet_jax && python train.py"
```

```python
python = "not a command"
```
"""
    found = docs_commands.collect("README.md", text)
    assert [(c.line, c.key, c.inline, c.mention) for c in found] == [
        (2, "mnet models", True, True),
        (2, "mnet predict --checkpoint RUN photo.jpg", True, False),
        (7, "pip install -e '.[test]' && pytest", False, False),
        (8, "mnet export --out a --format tflite", False, False),
        (11, 'ssh tpu --command=" cd mnet_jax && python train.py"', False, False),
    ]
    assert found[3].text == "mnet export --out a \\\n    --format tflite"


def test_a_block_that_ends_within_a_quote_is_refused():
    with pytest.raises(ValueError, match="does not end"):
        docs_commands.collect("README.md", '```bash\necho "\n```\n')


def test_the_list_is_printed_with_what_becomes_of_each():
    script = [sys.executable, ROOT / "tests/scripts/docs_commands.py", "--list", "README.md"]
    text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    assert "pip install -e . && python train.py" in text
    assert "IN NO LIST" not in text
