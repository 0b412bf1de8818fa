"""Several runs in one process, one after another: [flags of train.py] TURNS, a JSON list.

A turn is [workdir, number of devices] or [workdir, number of devices, other workdir, step]: it goes on from that step
of the other.
"""

import json
import pathlib
import shutil
import sys

from mnet_jax import runtime

runtime.settle_libtpu()

from mnet_jax.training import command, loop  # noqa: E402

if __name__ == "__main__":
    runtime.cache_compilations()
    *flags, turns = sys.argv[1:]
    for workdir, num_devices, *before in json.loads(turns):
        if before:
            shutil.copytree(before[0], workdir)
            for path in (pathlib.Path(workdir) / "checkpoints").iterdir():
                if int(path.name) > before[1]:
                    shutil.rmtree(path)
        config, _, _ = command.parse([*flags, f"--config.train.num_devices={num_devices}"])
        loop.train(config, workdir)
