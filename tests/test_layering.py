"""Who may import what: a table of allowed arrows, without exceptions; docs/architecture.md shows the same."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mnet_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

GROUND = ("errors", "files", "schema", "config", "runtime", "plotting")  # everyone may use these
ARROWS = {  # room -> other rooms, or single files of them, that it may use
    **dict.fromkeys(GROUND, ()),
    "models": (),
    "data": (),
    "augment": (),
    "tasks": (
        "augment",
        "models",
        "data.annotations",
        "data.catalog",
        "data.crop",
        "data.dataset",
        "data.fixed_views",
        "data.label_set",
        "data.pixel_map",
    ),
    "trained": ("models", "tasks", "data.annotations", "data.catalog"),
    "pretrained": ("models", "trained", "data.catalog"),
    "deploy": ("models", "tasks", "trained", "data"),
    "pod": (),
    "training": ("pod", "data", "models", "tasks", "trained", "pretrained"),
    "measuring": ("models", "pretrained.accuracies", "training.parallel"),
    "commands": ("data", "models", "augment", "tasks", "trained", "pretrained", "deploy", "training", "measuring"),
}
# Libraries that only some rooms or files may import; what is not listed is everybody's.
LIBRARIES = {
    "tensorflow": ("data", "deploy"),
    "tensorflow_datasets": ("data", "deploy"),
    "orbax": ("training/checkpoint.py", "training/saved.py"),
    "optax": ("training",),
    "flax": ("models", "tasks", "trained", "training", "commands"),
    "pycocotools": ("tasks/detection/average_precision.py",),
    "configs": (),
    "torch": (),
    "timm": (),
    "keras": (),
}


def room(path):
    """The room of a file: the folder below the package, or the name of a file beside the rooms."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path):
    """All modules that a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name, parents):
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def test_every_arrow_is_in_the_table():
    wrong = []
    for path in FILES:
        here = room(path)
        if here == "__init__":
            continue  # the public names, each imported when it is used
        for name in imports(path):
            if not name.startswith("mnet_jax.") or name == "mnet_jax.__version__":
                continue
            target = name.removeprefix("mnet_jax.")
            if not within(target, (here, *GROUND, *ARROWS[here])):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_rooms_make_no_circle():
    after = {name: {target.partition(".")[0] for target in targets} for name, targets in ARROWS.items()}
    done = set()
    while ready := {name for name, targets in after.items() if name not in done and targets <= done}:
        done |= ready
    assert done == set(after)


def test_files_make_no_circle():
    """Nor do files inside a room, where an import inside a function counts too."""
    modules = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    modules = {path: name.removesuffix(".__init__") for path, name in modules.items()}
    names = set(modules.values())
    graph = {}
    for path, name in modules.items():
        used = set()
        for target in imports(path):
            parents = [target, target.rpartition(".")[0]]
            used |= {next((module for module in parents if module in names), name)} - {name}
        graph[name] = used if name != "mnet_jax" else set()
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_every_library_has_its_rooms():
    wrong = []
    for path in FILES:
        file = path.relative_to(PACKAGE).as_posix()
        for name in imports(path):
            library = name.partition(".")[0]
            allowed = LIBRARIES.get(library)
            if allowed is not None and room(path) not in allowed and file not in allowed:
                wrong.append(f"{file} imports {name}")
    assert wrong == []


def test_pmap_has_one_file():
    assert [path.relative_to(PACKAGE).as_posix() for path in FILES if "jax.pmap" in path.read_text()] == [
        "training/parallel.py"
    ]


def test_only_initial_weights_come_from_pretrained():
    users = {path.name for path in FILES if room(path) == "training" for name in imports(path) if "pretrained" in name}
    assert users <= {"initial.py"}


@pytest.mark.parametrize(
    "module", ["specs", "plans", "tables", "resolve", "heads.boxes", "heads.ssd", "heads.pyramid", "heads.tables"]
)
def test_the_plan_is_pure_python(module):
    code = f"import sys, mnet_jax.models.{module}; print([m for m in ('jax', 'flax', 'numpy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_catch_all_and_no_overlong_files():
    assert [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")] == []
    assert {path.name: lines for path in FILES if (lines := len(path.read_text().splitlines())) > 350} == {}


# One more where a file is a subcommand: `mnet doctor` is the eighteenth of `mnet`.
@pytest.mark.parametrize(("folders", "most"), [(("training",), 20), (("commands", "measuring"), 21)])
def test_a_room_is_small_enough_to_be_read(folders, most):
    assert len([path for path in FILES if room(path) in folders and path.name != "__init__.py"]) <= most


def test_training_knows_no_task():
    """The words of one task occur outside texts for people in no file of the loop."""
    words, found = ("top1", "top5", "class_names", "logits"), []
    for path in FILES:
        if room(path) == "training":
            found += [f"{path.name}: {word}" for word in words if word in path.read_text()]
            names = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
            found += [f"{path.name}: the field label" for node in names if node.value == "label"]
    assert found == []


@pytest.mark.parametrize("module", ["mnet_jax", "mnet_jax.commands.cli", "mnet_jax.training.command"])
def test_light_imports_stay_light(module):
    code = f"import sys, {module}; print([m for m in ('jax', 'tensorflow', 'orbax', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
