"""The `mnet` command as a person meets it: real processes, real pipes; what they print and how they end."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from mnet_jax.models.tables import SPECS

MNET = pathlib.Path(sys.executable).with_name("mnet")

# Parameters at width 1 with 1000 classes, millions of multiply-adds at the side in pixels: the papers' and the model
# garden's numbers, as counted from TensorFlow's own models.
GOLDEN = {
    "v1": (4_231_976, 568.7, 224),
    "v2": (3_504_872, 300.8, 224),
    "v3_large": (5_483_032, 216.6, 224),
    "v3_small": (2_542_856, 56.5, 224),
    "v4_conv_small": (3_774_024, 186.0, 224),
    "v4_conv_medium": (9_715_512, 1080.2, 256),
    "v4_conv_large": (32_590_864, 6376.2, 384),
    "v4_hybrid_medium": (11_074_648, 1271.2, 256),
    "v4_hybrid_large": (37_764_624, 7711.9, 384),
}


def installed(*arguments):
    """Runs the installed command in a process of its own; returns exit code, stdout, stderr."""
    done = subprocess.run([MNET, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def seconds_of(*arguments):
    """The best of three: this machine has other work."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([MNET, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_help_is_quick_and_names_every_subcommand():
    code, out, err = installed("--help")
    assert (code, err) == (0, "")
    for command in ("models", "summary", "evaluate", "predict"):
        assert re.search(rf"^ +{command} +\w", out, re.MULTILINE)
    assert seconds_of("--help") < 1.0


def modules_after(*arguments):
    """Which of the heavy packages a subcommand imports."""
    script = (
        "import json, sys\n"
        "from mnet_jax.commands.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([name for name in ('jax', 'tensorflow', 'orbax', 'matplotlib') if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["evaluate", "--help"],
        ["models"],
        ["summary", "v3_large"],
        ["summary", "ssdlite320_v3_large"],
        ["summary", "lraspp_v2"],
    ],
)
def test_reading_about_models_imports_nothing_heavy(arguments):
    assert modules_after(*arguments) == []


def test_summary_is_quick():
    assert seconds_of("summary", "v4_hybrid_large") < 2.0


@pytest.mark.parametrize("command", ["models", "summary", "evaluate", "predict"])
def test_help_of_each_subcommand(command, mnet):
    code, out, err = mnet(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: mnet {command}")
    assert "--json" in out


def test_models_table_has_the_published_counts(mnet):
    code, out, err = mnet("models", "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert list(rows) == list(SPECS)
    for name, (parameters, millions, side) in GOLDEN.items():
        assert rows[name]["params"] == parameters
        assert rows[name]["multiply_adds"] / 1e6 == pytest.approx(millions, abs=0.05)
        assert rows[name]["image_size"] == side
        assert "arXiv" in rows[name]["source"]


def test_models_table_for_people(mnet):
    code, out, _ = mnet("models")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 1 + len(SPECS)
    start = lines[0].index("paper")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)  # ragged in the last column only
    line = next(line for line in lines if line.startswith("v3_large "))
    assert "5,483,032" in line
    assert "216.6 M" in line
    assert "224" in line


def test_summary_of_a_block_table(mnet):
    code, out, _ = mnet("summary", "v3_large", "--json")
    table = json.loads(out)
    assert code == 0
    assert table["totals"]["params"] == sum(row["params"] for row in table["rows"]) == GOLDEN["v3_large"][0]
    assert table["totals"]["multiply_adds"] == sum(row["multiply_adds"] for row in table["rows"])
    code, out, _ = mnet("summary", "v3_large")
    assert code == 0
    assert "5,483,032" in out


def test_summary_of_segmenters(mnet):
    """torchvision's own instance counts 3,221,538 parameters; the V3 paper's LR-ASPP on V3-Small .47 M."""
    table = json.loads(mnet("summary", "lraspp_v3_large", "--json")[1])
    assert table["totals"]["params"] == 3_221_538
    assert (table["num_classes"], table["image_size"]) == (21, [520, 520])
    table = json.loads(
        mnet("summary", "lraspp_v3_small_tf", "--num_classes", 19, "--image_size", "1024x2048", "--json")[1]
    )
    assert round(table["totals"]["params"] / 1e6, 2) == 0.47
    assert "Did you mean 'lraspp_v3_large'" in mnet("summary", "lraspp_v3_larg")[2]


def test_summary_of_detectors(mnet):
    """torchvision's own instance counts 3,440,060 parameters; TensorFlow's with 80 classes on V1 5,100,661."""
    table = json.loads(mnet("summary", "ssdlite320_v3_large", "--json")[1])
    assert table["totals"]["params"] == 3_440_060
    assert (table["num_classes"], table["image_size"]) == (90, [320, 320])
    code, out, _ = mnet("summary", "--config", "configs/ssdlite_v1.py", "--json")
    table = json.loads(out)
    assert code == 0
    assert (table["name"], table["num_classes"]) == ("v1", 80)  # COCO's published sizes: no files are needed
    assert table["totals"]["params"] == 5_100_661
    larger = mnet("summary", "--config", "configs/ssdlite_v1.py", "--config.data.image_size=512", "--json")[1]
    assert json.loads(larger)["rows"][-1]["input_shape"][:2] == [1, 1]
    assert json.loads(larger)["rows"][0]["input_shape"] == [512, 512, 3]


def test_summary_options(mnet):
    options = ["--width", "0.75", "--image_size", "192x256", "--num_classes", "1000", "--json"]
    code, out, _ = mnet("summary", "v2", *options)
    table = json.loads(out)
    assert code == 0
    assert table["totals"]["params"] == 2_636_424  # width 0.75, TensorFlow's rule
    assert table["image_size"] == [192, 256]
    small = json.loads(mnet("summary", "v2", "--image_size", "32", "--stem_stride", "1", "--json")[1])
    large = json.loads(mnet("summary", "v2", "--image_size", "128", "--json")[1])
    assert small["totals"]["params"] == large["totals"]["params"]
    assert small["rows"][-2]["output_shape"] == large["rows"][-2]["output_shape"] == [4, 4, 1280]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["modles"], "unknown command 'modles'.*models"),
        (["summary"], "give MODEL, one of `mnet models`, or --config FILE"),
        (["summary", "v1", "--config", "digits"], "MODEL.*or --config FILE, not both"),
        (["summary", "--config", "digits", "--width", "0.5"], "--width goes with MODEL.*--config.model.width=0.5"),
        (["summary", "ssdlite320_v3_larg"], "Did you mean 'ssdlite320_v3_large'"),
        (["summary", "ssd300_v1", "--stem_stride", "2"], "--stem_stride.*ssd300_v1 has its own"),
        (["summary", "v3_lage"], "'v3_lage'.*v3_large"),
        (["summary", "v1", "--width", "0"], "width.*0"),
        (["summary", "v1", "--width", "wide"], "--width.*'wide'"),
        (["summary", "v1", "--image_size", "0"], "--image_size.*'0'"),
        (["summary", "v1", "--image_size", "1x2x3"], "--image_size.*HEIGHTxWIDTH"),
        (["summary", "v1", "--num_classes", "0"], "num_classes.*0"),
        (["summary", "v1", "--width_rule", "torch"], "width_rule.*'torch'"),
        (["summary", "v1", "--stem_stride", "3"], "stem_stride.*3"),
        (["summary", "v1", "--jsno"], "--jsno"),
        (["evaluate"], "--checkpoint"),
        (["evaluate", "--checkpoint", "/no/such/run"], "no checkpoint in /no/such/run"),
        (["evaluate", "--checkpoint", "x", "--step", "last"], "--step.*best, latest or a number.*'last'"),
        (["evaluate", "--checkpoint", "x", "--batch_size", "0"], "--batch_size.*0"),
        (["evaluate", "--checkpoint", "x", "--ema", "--raw"], "--raw.*--ema"),
        (["evaluate", "--checkpoint", "x", "--data", "digits", "--folder", "y"], "--folder.*--data digits"),
        (["predict", "--checkpoint", "x"], "IMAGE"),
        (["predict", "--checkpoint", "/no/such/run", "a.jpg"], "no checkpoint in /no/such/run"),
        (["predict", "--checkpoint", "x", "--top", "0", "a.jpg"], "--top.*0"),
        (["predict", "--checkpoint", "x", "no/such/*.jpg"], "no file matches 'no/such/\\*.jpg'"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message, mnet):
    code, out, err = mnet(*arguments)
    assert code == 2
    assert out == ""
    assert re.fullmatch(rf"mnet: .*{message}.*\n", err), err


def test_a_directory_without_images_is_an_error(tmp_path, mnet):
    code, _, err = mnet("predict", "--checkpoint", "x", tmp_path)
    assert code == 2
    assert err == f"mnet: no images in {tmp_path}\n"


def test_traceback_on_request(mnet):
    with pytest.raises(ValueError, match="v3_lage"):
        mnet("summary", "v3_lage", "--traceback")


def test_a_closed_pipe_is_no_error():
    process = subprocess.Popen(
        [MNET, "models", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    process.stdout.close()  # as `| head` does once it has enough
    error = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert error == ""
