"""Every fault of docs/reliability.md's table: one line that says what and what to type, and nothing more is lost.

tests/scripts/fault_table.py injects them all, for minutes. Here are those that take less than a second each, and of the
others, under the mark `long`, one of each kind. Many have tests of their own elsewhere, that say more.
"""

import pathlib
import re

import all_faults
import fault
import of_files
import of_runs
import of_starts
import pytest

PAGE = fault.ROOT / "docs" / "reliability.md"
QUICK = [
    *of_runs.RUNS[::3],
    *(one for one in of_starts.TYPED if re.search("field|value|choice|units|option", one.name)),
    *(one for one in of_files.FILES if "doctor" in one.name and re.search("onnx|stablehlo", one.name)),
]
LONGER = [
    one
    for one in all_faults.FAULTS
    if re.search(
        "two runs|another model|can only be read|cut at a record|an image is none|label 77|named pipe|claims 65,500"
        "|one class only|not finite|memory of the device|pth cut|a pickle|fine-tune|SavedModel|in the newest",
        one.name,
    )
]
IGNORED = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """What the faults are injected into."""
    return fault.Things(tmp_path_factory.mktemp("things"))


def test_the_page_has_them_all():
    """At least sixty, each with its row and as it should be: others are not written there."""
    assert len(all_faults.FAULTS) >= 60
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    for one in all_faults.FAULTS:
        assert any(row.startswith(f"| {fault.tidy(one.name)} | ") for row in rows), f"{one.name}: write the page anew"


@IGNORED
@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_a_fault(one, things, tmp_path, monkeypatch):
    check(one, things, tmp_path, monkeypatch)


@pytest.mark.long
@IGNORED
@pytest.mark.parametrize("one", LONGER, ids=lambda one: one.name)
def test_a_fault_that_takes_longer(one, things, tmp_path, monkeypatch):
    check(one, things, tmp_path, monkeypatch)


def check(one, things, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = pathlib.Path(tmp_path, "place")
    place.mkdir()
    found = one.inject(things, place)
    assert re.search(one.said, found.line), found.said
    assert found.lost.startswith(one.lost)
    assert "Traceback" not in found.said
    assert len(found.line) < 1500
