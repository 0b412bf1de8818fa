"""A pytest plugin that tells which numeric bounds were passed by little: what another machine's rounding could break.

    PYTHONPATH=tests/scripts pytest -p thin_margins -o enable_assertion_pass_hook=true -n 2 [--thin 0.7] [TEST ...]

It looks at `assert A < B` (and <=, >, >=) of floats and at `np.testing.assert_allclose`, and prints those that used
more than a share `--thin` of what they were allowed, largest share first. Sharp comparisons are shown too: a bound that
is reached by design (a clip, a rounding to the nearest) is no mistake. What matters is whether its reason is written
beside it.
"""

import re

import numpy as np
import pytest

_NUMBER = r"(?:np\.\w+\()?(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)\)?"
_COMPARED = re.compile(rf"^{_NUMBER} (<=?|>=?) (?:\(?{_NUMBER}(?: \* {_NUMBER})?\)?)")
_found: dict[tuple[str, str], float] = {}
_current = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the share above which a bound is told."""
    parser.addoption("--thin", type=float, default=0.7, help="share of a bound above which it is told")


def _note(where: str, what: str, share: float) -> None:
    _found[where, what] = max(share, _found.get((where, what), 0.0))


def pytest_assertion_pass(item: pytest.Item, lineno: int, orig: str, expl: str) -> None:
    """Reads the values out of what pytest says of an assertion that held."""
    match = _COMPARED.match(expl)
    if match is None or not any(mark in match[0] for mark in ".e"):  # whole numbers are counts, not measurements
        return
    left, right = float(match[1]), float(match[3]) * float(match[4] or 1)
    small, large = (left, right) if match[2][0] == "<" else (right, left)
    if small > 0:
        _note(item.nodeid, f"{lineno}: {orig} ({expl.splitlines()[0]})", small / large if large else 1.0)


@pytest.fixture(autouse=True)
def _watch_allclose(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures `assert_allclose`: the largest difference over what is allowed there."""
    real = np.testing.assert_allclose

    def measured(actual, desired, rtol=1e-7, atol=0, **options):
        real(actual, desired, rtol=rtol, atol=atol, **options)
        try:
            found, wanted = np.asarray(actual, np.float64), np.asarray(desired, np.float64)
        except (TypeError, ValueError):
            return
        allowed = atol + rtol * np.abs(wanted)
        difference = np.abs(found - wanted)
        used = difference[np.isfinite(difference) & (difference > 0)]
        if used.size:
            allowed = np.broadcast_to(allowed, difference.shape)[np.isfinite(difference) & (difference > 0)]
            _note(request.node.nodeid, f"assert_allclose(rtol={rtol}, atol={atol})", float(np.max(used / allowed)))

    monkeypatch.setattr(np.testing, "assert_allclose", measured)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hands what a worker found to the process that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["thin"] = [[*key, share] for key, share in _found.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Takes what a worker found."""
    for where, what, share in getattr(node, "workeroutput", {}).get("thin", ()):
        _note(where, what, share)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the thin ones."""
    bound = terminalreporter.config.getoption("--thin")
    thin = sorted(((share, *key) for key, share in _found.items() if share > bound), reverse=True)
    terminalreporter.section(f"{len(thin)} of {len(_found)} numeric bounds used more than {bound:.0%}")
    for share, where, what in thin:
        terminalreporter.write_line(f"{share:.3f}  {where}: {what}")
