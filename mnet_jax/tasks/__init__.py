"""What is learned: one folder a task, each with the faces `task`, `report`, `predict` and `export`.

A task of your own is a package with the same faces somewhere else: `config.task.name` is then its import path.
"""

import importlib
from types import ModuleType

from mnet_jax.errors import did_you_mean

TASKS = {
    "classification": "mnet_jax.tasks.classification",
    "detection": "mnet_jax.tasks.detection",
    "multilabel": "mnet_jax.tasks.multilabel",
    "segmentation": "mnet_jax.tasks.segmentation",
}
FACES = ("task", "report", "predict", "export")


def face(name: str, face: str) -> ModuleType:
    """Returns a task's module "task", "report", "predict" or "export", imported when it is asked for.

    Raises:
      ValueError: if there is no such task, or it lacks that face.
    """
    package = TASKS.get(name, name)
    module = f"{package}.{face}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise ValueError(f"task.name={name!r}: the package has no module {face!r}") from error
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the task is there; something that it imports is not
    raise ValueError(
        f"task.name={name!r}: no such task; choose {', '.join(TASKS)}, or give the import path of a package with the "
        f"modules {', '.join(FACES)}.{did_you_mean(name, TASKS)}"
    )
