"""What a run shows at its end: the middles that were found."""

import pathlib


def refusal(task, info):
    return None


def report(task, outputs, dataset, workdir, *, step):
    rows = [row for found, _ in outputs for row in found["middle"].tolist()]
    text = "".join(f"{y:.4f},{x:.4f}\n" for y, x in rows)
    (pathlib.Path(workdir) / "middles.csv").write_text(text)
    return [f"{len(rows)} middles of step {step} in middles.csv"]
