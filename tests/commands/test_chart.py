"""`mnet chart`: measured, kept, drawn and told in words."""

import json

import numpy as np
import pytest
from matplotlib import image

from mnet_jax.measuring import chart, clock
from mnet_jax.measuring.clock import Latency, Network
from mnet_jax.models.tables import BACKBONES, SPECS, VARIANTS

TINY = Network(model="v1", width=0.25, image_size=128)


def latency(network, milliseconds):
    return Latency(network=network, threads=2, milliseconds=milliseconds, machine="here")


def test_a_measured_network_is_kept_drawn_and_told(tmp_path, mnet):
    kept, picture = tmp_path / "figures" / "kept.json", tmp_path / "pictures" / "chart.png"
    files = ("--out", picture, "--measurements", kept)
    assert mnet("chart", *files)[0] == 0
    before = image.imread(picture)
    code, out, err = mnet("chart", "--measure", "--models", "v1@0.25@128", *files)
    assert code == 0
    assert err.startswith("mnet: v1 x0.25 128 px: ")
    assert out.splitlines()[0].startswith("140 published accuracies of 69 networks, from v2 x0.35 96 px 45.5 % at 12 M")
    assert "threads of" in out.splitlines()[2]
    assert out.splitlines()[-1] == f"picture: {picture}"
    (record,) = clock.read_latencies(kept)
    assert record.network == TINY
    assert 0 < record.milliseconds < 1000
    assert np.any(image.imread(picture) != before)
    document = json.loads(mnet("chart", "--json", *files)[1])
    timed = [point for point in document["points"] if point["latencies"]]
    assert [point["network"] for point in timed] == [vars(TINY)]
    assert timed[0]["latencies"][0]["milliseconds"] == record.milliseconds
    assert list(picture.parent.iterdir()) == [picture]


def test_a_newer_latency_takes_the_place_of_the_older(tmp_path):
    path = tmp_path / "kept.json"
    other = Network(model="v2", image_size=224)
    for record in (latency(TINY, 3.0), latency(other, 9.0), latency(TINY, 2.0)):
        clock.add_latency(record, path=path)
    assert clock.read_latencies(path) == [latency(TINY, 2.0), latency(other, 9.0)]


def test_latencies_of_files_with_more_columns_are_read(tmp_path):
    """Such as those written before 2026-11-28: with a runtime, always jax, and a list of evaluations, always empty."""
    row = {"network": vars(TINY), "runtime": "jax", "threads": 2, "milliseconds": 1.5, "machine": "here"}
    path = tmp_path / "kept.json"
    path.write_text(json.dumps({"latencies": [row], "evaluations": []}))
    assert clock.read_latencies(path) == [latency(TINY, 1.5)]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"latencies": [{"network": {}}]}', '{"latencies": 3}'])
def test_another_file_is_refused(tmp_path, mnet, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    code, _, err = mnet("chart", "--measurements", path, "--out", tmp_path / "chart.png")
    assert code == 2
    assert err.startswith(f"mnet: {path} is not a file of measurements")
    assert not (tmp_path / "chart.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "chart.jpg"), "--out must end in .png, got 'chart.jpg'"),
        (("--models", "v1"), "--models says what to measure: add --measure"),
        (("--measure", "--models", "v11"), "unknown model 'v11'; choose one of: "),
        (("--measure", "--models", "v1@x"), "'v1@x' is no NAME@WIDTH@PIXELS: such as v1, v1@0.5 or v1@0.5@160"),
        (("--measure", "--models", "v1@1@8"), "'v1@1@8' is no NAME@WIDTH@PIXELS"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, mnet, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = mnet("chart", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_points_are_sorted_by_cost_and_hold_what_is_known_of_them():
    points = chart.collect([latency(TINY, 2.0)])
    costs = [point.multiply_adds for point in points]
    assert costs == sorted(costs)
    assert all(point.top1 == max(accuracy.top1 for accuracy in point.published) for point in points)
    assert [point.network for point in points if point.latencies] == [TINY]


def test_every_architecture_of_a_paper_is_measured_and_all_that_is_measured_is_shown():
    assert {network.model for network in chart.MEASURED} == set(SPECS) - set(BACKBONES) - set(VARIANTS)
    assert set(chart.MEASURED) <= {point.network for point in chart.collect()}
