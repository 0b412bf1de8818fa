"""What was measured on this machine, kept between commands: one JSON list, the newest figure of each kind."""

import dataclasses
import json
import os
import pathlib

DEFAULT = pathlib.Path("~/.cache/mnet_jax/measurements.json")

RUNTIMES = {"jax": "JAX"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Which network a figure belongs to."""

    model: str
    width: float
    width_rule: str
    image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Median time of one image."""

    network: Network
    runtime: str  # one of RUNTIMES
    threads: int
    milliseconds: float
    machine: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Top-1 of weights that `mnet evaluate` measured."""

    network: Network
    data: str
    num_images: int
    top1: float  # percent
    weights: str  # which ones


def read(path: str | os.PathLike | None = None) -> tuple[list[Latency], list[Evaluation]]:
    """All figures of a file (None: this machine's); none if there is no file.

    Raises:
      ValueError: if the file is something else.
    """
    path = pathlib.Path(path or DEFAULT).expanduser()
    if not path.exists():
        return [], []
    try:
        document = json.loads(path.read_text())
        latencies = [_record(Latency, row) for row in document["latencies"]]
        evaluations = [_record(Evaluation, row) for row in document["evaluations"]]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of measurements ({error!r}): delete it or give another one") from error
    return latencies, evaluations


def add(*records: Latency | Evaluation, path: str | os.PathLike | None = None) -> None:
    """Adds figures to a file; each takes the place of an older one of the same network and circumstances."""
    path = pathlib.Path(path or DEFAULT).expanduser()
    latencies, evaluations = read(path)
    kept = {_key(record): record for record in (*latencies, *evaluations, *records)}
    document = {
        "latencies": [dataclasses.asdict(record) for record in kept.values() if isinstance(record, Latency)],
        "evaluations": [dataclasses.asdict(record) for record in kept.values() if isinstance(record, Evaluation)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(document, indent=1))
    beside.replace(path)


def machine() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "this machine"


def _key(record: Latency | Evaluation) -> tuple:
    values = {name: value for name, value in vars(record).items() if name not in ("milliseconds", "top1", "num_images")}
    return (type(record).__name__, *values.values())


def _record(kind: type, row: dict) -> Latency | Evaluation:
    return kind(network=Network(**row["network"]), **{name: row[name] for name in row if name != "network"})
