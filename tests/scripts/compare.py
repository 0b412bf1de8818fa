"""Measures mnet_jax and its peers in turn, each in a process of its own, and prints the ratios.

    python tests/scripts/compare.py train --peers torch,flax --peer_python peers/bin/python
    python tests/scripts/compare.py infer --models v3_large --batch_sizes 1,16 --peers torch,torch-compile

`--peer_python` (or MNET_PEER_PYTHON) is the interpreter that has requirements.txt installed; without it, this one.
Every round runs us and then each peer; a figure is the median over the rounds of each run's median.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODELS = ("v1", "v2", "v3_large", "v3_small", "v4_conv_small")
# name -> (script, --variant, environment)
PEERS = {
    "torch": ("peer_torch.py", "", {}),  # torchvision where it has the net, else timm
    "torch-compile": ("peer_torch.py", "compile", {}),
    "timm": ("peer_torch.py", "timm", {}),
    "timm-compile": ("peer_torch.py", "timm-compile", {}),
    "keras-jax": ("peer_keras.py", "", {"KERAS_BACKEND": "jax"}),
    "keras-tensorflow": ("peer_keras.py", "", {"KERAS_BACKEND": "tensorflow"}),
    "flax": ("peer_flax.py", "", {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("train", "infer"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--peers", default="torch", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--batch_sizes", default="16")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each run's measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peer_python", default=os.environ.get("MNET_PEER_PYTHON", sys.executable))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    peers = args.peers.split(",") if args.peers else []
    unknown = [peer for peer in peers if peer not in PEERS]
    if unknown:
        parser.error(f"unknown peer {unknown[0]!r}; choose of {', '.join(PEERS)}")
    rows = []
    for batch_size in map(int, args.batch_sizes.split(",")):
        for model in args.models.split(","):
            common = [args.mode, model, "--batch_size", str(batch_size), "--image_size", str(args.image_size)]
            common += ["--seconds", str(args.seconds)]
            speeds: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                ours = run([sys.executable, "-m", "mnet_jax.commands.cli", "benchmark", *common, "--json"], {})
                speeds.setdefault("mnet_jax", []).append(ours)
                for peer in peers:
                    script, variant, env = PEERS[peer]
                    command = [args.peer_python, str(HERE / script), *common, "--variant", variant]
                    speeds.setdefault(peer, []).append(run(command, env))
            row = {"mode": args.mode, "model": model, "batch_size": batch_size}
            row |= {name: statistics.median(values) for name, values in speeds.items()}
            row |= {f"over_{peer}": row["mnet_jax"] / row[peer] for peer in peers}
            rows.append(row)
            if not args.json:
                text = "  ".join(f"{peer} {row[peer]:.1f} ({row[f'over_{peer}']:.2f}x)" for peer in peers)
                print(
                    f"{args.mode} {model:<14} batch {batch_size:<3} mnet_jax {row['mnet_jax']:.1f}  {text}", flush=True
                )
    if args.json:
        print(json.dumps(rows, indent=2))
    return 0


def run(command: list[str], env: dict[str, str]) -> float:
    """Images a second that the command's JSON document tells; NaN, with its last words on stderr, where it fails."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet | env)
    if done.returncode:
        print(f"{' '.join(command[1:3])} failed: {done.stderr.strip()[-600:]}", file=sys.stderr)
        return float("nan")
    return json.loads(done.stdout[done.stdout.index("{") :])["images_per_second"]


if __name__ == "__main__":
    sys.exit(main())
