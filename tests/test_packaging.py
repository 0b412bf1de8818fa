"""What goes into the wheel: every folder of the package, the configs, and the data files beside the code."""

import pathlib
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_every_folder_of_the_package_is_listed():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "mnet_jax").rglob("*.py")}
    there = {".".join(folder.parts) for folder in folders} | {"mnet_jax.configs"}
    assert sorted(TOOL["packages"]) == sorted(there)
    assert TOOL["package-dir"] == {"mnet_jax.configs": "configs"}


def test_every_file_that_is_no_code_is_listed():
    files = {
        path.relative_to(ROOT / "mnet_jax").as_posix()
        for path in (ROOT / "mnet_jax").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert sorted(TOOL["package-data"]["mnet_jax"]) == sorted(files)
