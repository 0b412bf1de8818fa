"""A graph as StableHLO: one program for CPU, CUDA and TPU, for any batch, that runs with jax alone.

The file is a zip archive (stored): `program.jax_export` (what `jax.export` serialises; the StableHLO is inside), the
label file, and JSON with metadata and the versions that made it; its comment is a sum of all before it.
"""

import json
import os
import zipfile

import jax
import numpy as np
from jax import export as jax_export

from mnet_jax.deploy import graph as g
from mnet_jax.deploy import sums
from mnet_jax.deploy.interpret import interpret
from mnet_jax.deploy.metadata import JSON_FILE, LABELS_FILE, ZIP_DATE, About, from_json
from mnet_jax.files import placed

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM_FILE = "program.jax_export"
VERSIONS_FILE = "versions.json"


def write(graph: g.Graph, about: About, path: str | os.PathLike) -> None:
    """Writes the archive; the batch is free."""
    exported = lower(graph)
    versions = {
        "jax": jax.__version__,
        "calling_convention": exported.calling_convention_version,
        "platforms": exported.platforms,
    }
    files = {
        PROGRAM_FILE: bytes(exported.serialize()),
        VERSIONS_FILE: json.dumps(versions),
        JSON_FILE: about.to_json(),
        LABELS_FILE: about.labels(),
    }
    with placed(path) as part:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content)
            archive.comment = sums.COMMENT
        part.write_bytes(sums.seal(part.read_bytes()))


def lower(graph: g.Graph) -> jax_export.Exported:
    """Returns the graph lowered for `PLATFORMS`: images [batch, *graph.input_shape] -> its results, [batch, ...]."""
    batch = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((*batch, *graph.input_shape), graph.input_dtype)
    program = jax.jit(lambda images: interpret(graph, images))
    return jax_export.export(program, platforms=PLATFORMS)(images)


class Runner:
    """A StableHLO file on jax's default device: images [N, H, W, 3] -> its results."""

    def __init__(self, path: str | os.PathLike):
        with zipfile.ZipFile(path) as archive:
            versions = json.loads(archive.read(VERSIONS_FILE))
            self.about = from_json(archive.read(JSON_FILE))
            program = bytearray(archive.read(PROGRAM_FILE))
        _check_version(path, versions["jax"])
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if platform not in versions["platforms"]:
            known = ", ".join(versions["platforms"])
            raise ValueError(f"{path} was made for {known}, not for {platform}: set JAX_PLATFORMS=cpu")
        try:
            exported = jax_export.deserialize(program)
        except Exception as error:  # of several kinds: a newer format, a flatbuffer that is none
            raise ValueError(
                f"{path} was made by jax {versions['jax']} and jax {jax.__version__} cannot read it "
                f"({type(error).__name__}): export it again, or install jax=={versions['jax']}"
            ) from error
        self._call = jax.jit(exported.call)

    def __call__(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        return jax.tree.map(np.asarray, self._call(images))


def _check_version(path: str | os.PathLike, made_by: str) -> None:
    """Older programs run for half a year at least, newer ones need not: jax promises no more than three weeks."""
    if _release(made_by) > _release(jax.__version__):
        raise ValueError(
            f"{path} was made by jax {made_by}, this is jax {jax.__version__}: "
            f"type pip install 'jax>={made_by}', or export it again with this jax"
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
