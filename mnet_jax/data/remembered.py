"""What was found out about a folder and is kept for the next start: beside its files, or in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

from mnet_jax import files


class Remembered:
    """A JSON file about one local folder; of a bucket nothing is kept. What cannot be written is found out again."""

    def __init__(self, root: str, name: str):
        """Takes the folder, and what the file is about: "listing", "masks"."""
        digest = hashlib.blake2b(os.path.abspath(root).encode(), digest_size=8).hexdigest()
        beside, own = os.path.join(root, f".mnet_{name}.json"), f"~/.cache/mnet_jax/{name}-{digest}.json"
        self._places = () if "://" in root else (beside, os.path.expanduser(own))

    def read(self) -> dict[str, Any]:
        """Returns what was kept; {} where that is nothing, or damaged."""
        for path in self._places:
            with contextlib.suppress(OSError, ValueError, RecursionError):
                found = json.loads(pathlib.Path(path).read_text())
                if isinstance(found, dict):
                    return found
        return {}

    def write(self, value: dict[str, Any]) -> None:
        """Keeps a value, beside the folder's files, or in the user's own cache where these are read-only."""
        for path in self._places:
            with contextlib.suppress(OSError):
                pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
                files.write_whole(path, json.dumps(value))
                return
