"""The types of the public functions, as a user's type checker sees them."""

import ast
import pathlib
import subprocess
import sys

import pytest

import mnet_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.long
def test_a_program_that_uses_the_public_functions_passes_mypy():
    # what it checks, and how strictly, is in pyproject.toml
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_that_program_uses_every_public_function():
    tree = ast.parse((ROOT / "tests" / "typing" / "public_api.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mnet_jax"
    }
    assert set(mnet_jax.__all__) - used == set()
