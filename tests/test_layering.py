"""Who may import what: each room of the package knows only what DESIGN allows it to know."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "mnet_jax").rglob("*.py"))
ROOMS = ("models", "data", "tasks", "training", "pretrained", "deploy", "commands")


def imports(path):
    """All modules that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offenders(files, *modules):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in files
        for name in imports(path)
        if any(name == module or name.startswith(module + ".") for module in modules)
    ]


def room(*names):
    return [path for path in FILES if path.relative_to(ROOT / "mnet_jax").parts[0] in names]


def others(*names):
    return [f"mnet_jax.{name}" for name in ROOMS if name not in names]


def test_models_know_only_models():
    assert offenders(room("models"), *others("models"), "optax", "orbax", "tensorflow", "configs") == []


def test_data_knows_only_data():
    assert offenders(room("data"), *others("data"), "flax", "optax", "orbax", "configs") == []


def test_tasks_know_only_tasks():
    assert offenders(room("tasks"), *others("tasks"), "optax", "orbax", "tensorflow", "configs") == []


def test_deploy_knows_only_models():
    assert offenders(room("deploy"), *others("deploy", "models"), "optax", "orbax", "configs") == []


def test_training_does_not_know_tools_beyond_its_plots():
    assert [
        line for line in offenders(room("training"), "mnet_jax.commands") if "mnet_jax.training.curves" not in line
    ] == []


def test_pretrained_knows_neither_tasks_nor_tools_nor_the_libraries_whose_files_it_reads():
    assert offenders(room("pretrained"), "mnet_jax.tasks", "mnet_jax.commands", "torch", "timm", "keras", "optax") == []


def test_tensorflow_is_imported_in_two_rooms_only():
    elsewhere = [path for path in FILES if path not in room("data", "deploy")]
    assert offenders(elsewhere, "tensorflow", "tensorflow_datasets") == []


def test_orbax_and_pmap_have_one_file_each():
    def saying(word):
        return [str(path.relative_to(ROOT / "mnet_jax")) for path in FILES if word in path.read_text()]

    assert {line.split()[0] for line in offenders(FILES, "orbax")} == {"mnet_jax/training/checkpoint.py"}
    assert saying("jax.pmap") == ["training/parallel.py"]


def test_the_plan_is_pure_python():
    pure = [ROOT / "mnet_jax/models/specs.py", ROOT / "mnet_jax/models/tables.py"]
    assert offenders(pure, "jax", "flax", "numpy") == []


def test_no_catch_all_files():
    assert [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")] == []


@pytest.mark.parametrize("module", ["mnet_jax", "mnet_jax.commands.cli"])
def test_light_imports_stay_light(module):
    code = f"import sys, {module}; print([m for m in ('jax', 'tensorflow', 'orbax', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
