"""`mnet summary`'s numbers: rows that add up, shapes that connect, a table that a terminal can show."""

import json
import subprocess
import sys

import pytest

from mnet_jax.models import list_models
from mnet_jax.models.count import as_dict, format_table, summarize
from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS


@pytest.mark.parametrize("name", list_models())
def test_rows_connect_and_add_up(name):
    plan = resolve(SPECS[name], num_classes=5, width=0.5)
    rows, totals = summarize(plan, (100, 75))
    assert rows[0].input_shape == (100, 75, 3)
    assert rows[-1].output_shape == (5,)
    for before, after in zip(rows, rows[1:], strict=False):
        if after.kind == "fusion":
            fused = [row for row in rows if row.name in plan.fusion.blocks]
            size, features = fused[0].output_shape[:2], sum(row.output_shape[-1] for row in fused)
            assert after.input_shape == (*size, features)
            continue
        pooled = len(after.input_shape) < len(before.output_shape)
        assert after.input_shape == (before.output_shape[-1:] if pooled else before.output_shape)
    assert [row.name for row in rows if row.name.startswith("block_")] == [block.name for block in plan.blocks]
    assert totals.params == sum(row.params for row in rows)
    assert totals.batch_statistics == sum(row.batch_statistics for row in rows)
    assert totals.multiply_adds == sum(row.multiply_adds for row in rows)
    assert totals.variables == totals.params + totals.batch_statistics


def test_rows_by_hand():
    """V3-Small's first block on 224 px: depthwise 3 x 3 x 16 stride 2, squeeze to 8 and back, project 16 to 16."""
    rows, _ = summarize(resolve(SPECS["v3_small"], num_classes=1000), 224)
    stem, block = rows[:2]
    assert (stem.kind, stem.params, stem.multiply_adds) == ("conv", 3 * 3 * 3 * 16 + 2 * 16, 112 * 112 * 3 * 3 * 3 * 16)
    assert (block.kind, block.input_shape, block.output_shape) == ("inverted_residual", (112, 112, 16), (56, 56, 16))
    assert block.params == 9 * 16 + 2 * 16 + (16 * 8 + 8) + (8 * 16 + 16) + 16 * 16 + 2 * 16
    assert block.multiply_adds == 56 * 56 * (9 * 16 + 16 * 16) + 2 * 16 * 8
    assert block.batch_statistics == 4 * 16


def test_attention_by_hand():
    """A hybrid's attention on a 16 x 16 map of 160 channels: 4 heads of 64, keys and values from 8 x 8."""
    rows, _ = summarize(resolve(SPECS["v4_hybrid_medium"], num_classes=1000), 256)
    block = next(row for row in rows if row.kind == "mqa")
    assert block.input_shape == block.output_shape == (16, 16, 160)
    projections = 256 * 160 * 256 * 2 + 64 * 160 * 64 * 2
    assert block.multiply_adds == projections + 2 * 64 * 9 * 160 + 2 * 256 * 64 * 4 * 64


def test_one_number_means_a_square():
    plan = resolve(SPECS["v1"], num_classes=1000)
    assert summarize(plan, 160) == summarize(plan, (160, 160))


@pytest.mark.parametrize("image_size", [0, (224, 0), -3])
def test_images_without_pixels_are_refused(image_size):
    with pytest.raises(ValueError, match="image_size must be at least 1 pixel a side, got"):
        summarize(resolve(SPECS["v1"], num_classes=1000), image_size)


def test_table_has_a_line_for_each_row_and_fits_a_terminal():
    rows, totals = summarize(resolve(SPECS["v4_hybrid_large"], num_classes=1000), (384, 384))
    lines = format_table(rows, totals).splitlines()
    assert lines[0].split() == ["name", "kind", "input", "output", "params", "multiply-adds"]
    assert len(lines) == len(rows) + 6
    assert [line.split()[0] for line in lines[2 : 2 + len(rows)]] == [row.name for row in rows]
    assert max(map(len, lines)) <= 100
    assert lines[-3].split() == ["total", "37,764,624", "7,711,877,120"]
    assert lines[-2:] == [
        "37,764,624 parameters + 164,400 batch statistics = 37,929,024 variables",
        "7,711.9 million multiply-adds an image",
    ]


def test_dict_survives_json():
    rows, totals = summarize(resolve(SPECS["v2"], num_classes=1000, width=1.4), 96)
    document = as_dict(rows, totals)
    assert json.loads(json.dumps(document)) == document
    assert document["totals"]["params"] == 6_108_776
    assert document["rows"][0]["output_shape"] == [48, 48, 48]


def test_counting_needs_no_jax():
    code = "import sys, mnet_jax.models.count, mnet_jax.models.tables; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
