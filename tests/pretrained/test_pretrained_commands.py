"""Published weights where users meet them: `mnet weights`, evaluate and predict with --weights, and train.py."""

import json
import pathlib
import re
import sys

import jax
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import files

from mnet_jax import load_checkpoint, load_pretrained
from mnet_jax.config import load as load_config
from mnet_jax.models.tables import VARIANTS
from mnet_jax.pretrained import timm_rows
from mnet_jax.pretrained.layouts import KERAS, TIMM
from mnet_jax.pretrained.sources import CATALOGUE
from mnet_jax.pretrained.unsupported import UNSUPPORTED
from mnet_jax.trained import build_model
from mnet_jax.training import loop
from mnet_jax.training.initial import flat

ROOT = pathlib.Path(__file__).parents[2]
COUNTS = json.loads((ROOT / "tests" / "models" / "exact_counts.json").read_text())
CLASSES = ("ant", "bee", "cat")
EDGE = 73  # pixels: timm's crop of 0.875 for 64 px takes the middle 64 of 73, with no resampling


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A timm file with three classes of its own."""
    arrays = files.library_arrays(TIMM, "v4_conv_small", 0.35, num_classes=3)
    arrays["classifier.weight"] *= 0.01  # probabilities other than 0 and 1
    folder = tmp_path_factory.mktemp("weights")
    about = {"architecture": "mobilenetv4_conv_small_035", "num_classes": 3, "label_names": list(CLASSES)}
    return files.save_safetensors(folder / "model.safetensors", arrays, **about)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """photos/{train,val}/<class>/*.png: 24 and 12 images of 73 x 73 pixels, told apart by their colour."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 120, (EDGE, EDGE, 3), np.uint8)
                pixels[..., label] += 120
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def expected(weights, photos):
    """{file: probabilities} by Pillow and NumPy from the crop on, and the network of `load_pretrained`."""
    trained = load_pretrained(weights)
    apply = jax.jit(build_model(trained.config, trained.info).apply)
    paths = sorted(photos.glob("val/*/*.png"))
    margin = (EDGE - 64 + 1) // 2  # the odd pixel goes above and left, as in TensorFlow's pipelines
    pixels = [np.asarray(Image.open(path), np.float32)[margin : margin + 64, margin : margin + 64] for path in paths]
    logits = np.asarray(apply(trained.variables, (np.stack(pixels) - 127.5) / 127.5), np.float64)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return dict(zip(map(str, paths), exponents / exponents.sum(1, keepdims=True), strict=True))


def test_predict_is_the_network_on_its_own_preprocessing(weights, photos, expected, mnet):
    code, out, err = mnet("predict", "--weights", weights, photos / "val", "--top", 3, "--json")
    assert (code, err) == (0, "")
    images = json.loads(out)["images"]
    assert len(images) == 12
    for image in images:
        found = {row["class"]: row["probability"] for row in image["predictions"]}
        np.testing.assert_allclose([found[name] for name in CLASSES], expected[image["image"]], rtol=1e-3, atol=1e-5)


def test_evaluate_is_the_same(weights, photos, expected, mnet):
    code, out, err = mnet("evaluate", "--weights", weights, "--folder", photos, "--json")
    assert (code, err) == (0, f"mnet: evaluating 12 images of {photos}, split val\n")
    result = json.loads(out)
    labels = [CLASSES.index(pathlib.Path(path).parent.name) for path in expected]
    probabilities = np.stack(list(expected.values()))
    assert (result["weights"], result["num_images"]) == ("published", 12)
    assert result["top1"] == pytest.approx(np.mean(probabilities.argmax(1) == labels))
    assert result["loss"] == pytest.approx(-np.mean(np.log(probabilities[np.arange(12), labels])), rel=1e-3)


def test_real_weights_on_real_images(real_data, imagenet_sample, mnet):
    """Keras' V1 x0.25 on 300 validation images: 182 right when it was measured; two on the edge may fall otherwise."""
    file = real_data / "weights" / "keras_v1_0.25_224.h5"
    options = ("--like", "keras/mobilenet_0.25_224", "--data", "imagenet2012", "--data_dir", imagenet_sample, "--json")
    code, out, _ = mnet("evaluate", "--weights", file, *options)
    result = json.loads(out)
    assert code == 0
    assert result["num_images"] == 300
    assert result["top1"] == pytest.approx(182 / 300, abs=2.1 / 300)
    assert result["published"]["top1"] == 49.8


def test_predict_knows_the_names_of_imagenet(real_data, tmp_path, mnet):
    photo = tmp_path / "grey.png"
    Image.fromarray(np.full((300, 200), 99, np.uint8)).save(photo)
    file = real_data / "weights" / "keras_v1_0.25_224.h5"
    code, out, _ = mnet("predict", "--weights", file, photo, "--top", 2)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert all(re.fullmatch(r" +[\d.]+ %  [A-Za-z][A-Za-z' ,-]+", line) for line in lines[1:])  # not "class 17"


def test_train_starts_from_them_as_they_were_made(weights, photos, tmp_path, capsys):
    """The classifier knows its three classes already; architecture and preparation are those of the weights."""
    config = load_config("finetune")
    config.init.weights, config.data.folder = str(weights), str(photos)
    config.train.num_devices, config.train.embedding_views = 1, 2
    config.train.num_epochs, config.train.batch_size, config.eval.report = 4.0, 8, False
    loop.train(config, str(tmp_path / "run"))
    said = capsys.readouterr().err
    assert f"Restored from {weights}" in said
    assert "Started fresh" not in said
    run, source = load_checkpoint(tmp_path / "run", ema=False), load_pretrained(weights)
    for name in ("image_size", "eval_crop", "interpolation"):
        assert run.config.data[name] == source.config.data[name], name
    assert run.config.data.interpolation == "bicubic"
    assert tuple(run.config.data.mean) == (127.5,) * 3
    for name in ("name", "width", "width_rule", "padding", "norm_epsilon"):
        assert run.config.model[name] == source.config.model[name], name
    before, after = flat(source.variables), flat(run.variables)
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {"params/classifier/kernel", "params/classifier/bias"}
    loop.train(config, str(tmp_path / "run"))  # a second start finds what the first noted
    assert "This run is finished" in capsys.readouterr().err


def test_a_backbone_without_classifier_is_refused_where_one_is_needed(tmp_path, mnet):
    arrays = files.library_arrays(KERAS, "v2", 0.35)
    bare = {name: array for name, array in arrays.items() if not name.startswith("predictions/")}
    path = files.save_keras(tmp_path / "bare.h5", bare)
    for command in (("evaluate", "--data", "digits"), ("predict", "a.png")):
        code, out, err = mnet(command[0], "--weights", path, *command[1:])
        assert (code, out) == (2, "")
        assert re.search(r"mnet: .*bare\.h5 has no classifier: train one with python train\.py .*\n$", err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--weights", "keras/mobilenet_0.25_22"), "Did you mean 'keras/mobilenet_0.25_224'?"),
        (("--weights", "none.h5"), "no such file: none.h5"),
        (("--checkpoint", "runs/none", "--like", "keras/mobilenet_0.25_224"), "--like goes with --weights"),
    ],
)
def test_errors_are_one_line(arguments, message, mnet):
    code, out, err = mnet("evaluate", "--data", "digits", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_train_refuses_weights_that_are_none(photos, tmp_path):
    config = load_config("finetune")
    config.init.weights, config.data.folder = "timm/mobilenetv3_lage_100", str(photos)
    with pytest.raises(ValueError, match=r"Did you mean 'mobilenetv3_large_100'\?"):
        loop.train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# --- The catalogue ---


def test_the_catalogue_names_what_it_holds(mnet):
    code, out, _ = mnet("weights", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert len(rows) == 101
    # parameters as timm, torchvision and Keras publish them
    assert rows["timm/mobilenetv3_large_100.ra_in1k"]["params"] == 5_483_032
    assert rows["torchvision/mobilenet_v2.IMAGENET1K_V2"]["params"] == 3_504_872
    assert rows["keras/mobilenet_0.25_224"]["params"] == 470_072
    assert rows["timm/mobilenetv3_large_150d.ra4_e3600_r256_in1k"]["params"] == 14_622_320
    assert rows["timm/mobilenet_edgetpu_v2_m.ra4_e3600_r224_in1k"]["params"] == 8_462_888
    assert rows["timm/mobilenetv5_300m.gemma3n"]["params"] == 294_126_912
    assert rows["timm/mobilenetv3_rw.rmsp_in1k"]["norm_epsilon"] == 1e-3
    assert rows["timm/mobilenetv4_conv_medium.e500_r256_in1k"]["top1"] == pytest.approx(79.92, abs=0.005)


def test_words_choose_and_no_match_is_told(mnet):
    code, out, _ = mnet("weights", "v4", "hybrid_large")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        "timm/mobilenetv4_hybrid_large.ix_e600_r384_in1k",
        "timm/mobilenetv4_hybrid_large.e600_r384_in1k",
    ]
    code, out, err = mnet("weights", "v9")
    assert (code, out) == (2, "")
    assert "no published weights whose name contains v9" in err


def test_the_documented_table_is_the_catalogue(mnet):
    """docs/weights.md has a row for each entry, with its figures."""
    _, out, _ = mnet("weights", "--json")
    text = (ROOT / "docs" / "weights.md").read_text()
    documented = re.findall(
        r"^\| `(\S+)` \| (\S+) x(\S+) \| (\d+) \| ([\d,]+) \| (\S+) \| (\S+) \|", text, re.MULTILINE
    )

    def figure(value):
        return "-" if value is None else f"{value:.2f}"

    assert documented == [
        (
            *(row["name"], row["model"], f"{row['width']:g}", str(row["image_size"]), f"{row['params']:,}"),
            *(figure(row["top1"]), figure(row["top5"])),
        )
        for row in json.loads(out)
    ]


def test_the_documented_architectures_are_those_of_timm_that_load():
    """docs/weights.md has a row for each, ours with its parameters as the counts of timm itself have them."""
    text = (ROOT / "docs" / "weights.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (\w+) x(\S+) \| ([\d,]+) \| (\d+|-) \|$", text, re.MULTILINE)
    assert {name: (model, float(width)) for name, model, width, *_ in documented} == timm_rows.TIMM_ARCHITECTURES
    assert sum(int(published) for *_, published in documented if published != "-") == len(timm_rows.TIMM_ROWS)
    counts = {(name, width): params for name, width, rule, params, _ in COUNTS["libraries"] if rule == "timm"}
    shown = {(model, float(width)): int(params.replace(",", "")) for _, model, width, params, _ in documented}
    assert shown == {key: counts[key] for key in shown}


def test_what_is_not_loaded_is_documented_with_its_reason():
    text = (ROOT / "docs" / "weights.md").read_text()
    documented = dict(re.findall(r"^\| `(\w+/[\w.]+)` \| ([^|]+) \|$", text, re.MULTILINE))
    assert documented == UNSUPPORTED
    assert not set(UNSUPPORTED) & set(CATALOGUE)
    counts = re.findall(r"^\| (timm|torchvision|keras|keras_hub) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    for library, published, loaded in counts:
        ours, refused = (sum(name.startswith(f"{library}/") for name in names) for names in (CATALOGUE, UNSUPPORTED))
        assert (int(published), int(loaded)) == (ours + refused, ours)
    assert len(counts) == 4


def test_the_readme_names_the_best_of_each_architecture_of_a_paper(mnet):
    _, out, _ = mnet("weights", "--json")
    rows = [row for row in json.loads(out) if row["top1"] is not None and row["model"] not in VARIANTS]
    shown = re.findall(
        r"^\| `(\w+)` \| `(\w+/\S+)` \| (\d+) \| ([\d.]+) \| (\d+) \|$", ROOT.joinpath("README.md").read_text(), re.M
    )
    assert len(shown) == len({row["model"] for row in rows})
    for model, name, pixels, top1, _count in shown:
        best = max((row for row in rows if row["model"] == model and row["width"] == 1), key=lambda row: row["top1"])
        assert (name, pixels, top1) == (best["name"], str(best["image_size"]), f"{best['top1']:.2f}")
