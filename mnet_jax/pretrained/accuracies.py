"""Published ImageNet-1k accuracies of the family, as data: model, width, image size at test, top-1, and who says so.

Trained on ImageNet-1k alone, without a teacher, single crop. Left out on purpose: networks with other layers under
the same name (timm's "h", "d", "blur" and "aa" variants), ImageNet-21k or JFT pre-training, numbers that belong to
another width or resolution than they are quoted for (v2 "74 %", v3_large "76 to 78 %"), and Keras' docstring, whose
figures for V3 describe the networks of an early version of the paper. Parameters and multiply-adds are not repeated
from the sources, some of which are wrong: they are counted from the plan.
"""

import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Source:
    """A table that somebody published; rows are (model, width, {pixels: top-1 in percent})."""

    name: str
    width_rule: str  # how its widths are rounded, see `models.specs.resolve`
    rows: tuple[tuple[str, float, dict[int, float]], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """One published figure."""

    model: str
    width: float
    width_rule: str
    image_size: int
    top1: float  # percent
    source: str


def accuracies() -> Iterator[Accuracy]:
    """Every figure."""
    for source in SOURCES:
        for model, width, results in source.rows:
            for image_size, top1 in results.items():
                yield Accuracy(
                    model=model,
                    width=width,
                    width_rule=source.width_rule,
                    image_size=image_size,
                    top1=top1,
                    source=source.name,
                )


# timm: its results-imagenet.csv of 2026-08. slim, Model Garden: tensorflow/models, research/slim and official/vision.
# d-li14's v2 at width 0.1 is left out: it rounds to multiples of 4.
# fmt: off
SOURCES = (
    Source("arXiv 1704.04861 tables 6 and 7", "tf", (
        ("v1", 1.0, {224: 70.6, 192: 69.1, 160: 67.2, 128: 64.4}),
        ("v1", 0.75, {224: 68.4}),
        ("v1", 0.5, {224: 63.7}),
        ("v1", 0.25, {224: 50.6}),
    )),
    Source("slim, mobilenet_v1.md", "tf", (
        ("v1", 1.0, {224: 70.9, 192: 70, 160: 68, 128: 65.2}),
        ("v1", 0.75, {224: 68.4, 192: 67.2, 160: 65.3, 128: 62.1}),
        ("v1", 0.5, {224: 63.3, 192: 61.7, 160: 59.1, 128: 56.3}),
        ("v1", 0.25, {224: 49.8, 192: 47.7, 160: 45.5, 128: 41.5}),
    )),
    Source("arXiv 1801.04381 table 4", "tf", (
        ("v2", 1.0, {224: 72}),
        ("v2", 1.4, {224: 74.7}),
    )),
    Source("slim, mobilenet/README.md", "tf", (
        ("v2", 1.4, {224: 75}),
        ("v2", 1.3, {224: 74.4}),
        ("v2", 1.0, {224: 71.8, 192: 70.7, 160: 68.8, 128: 65.3, 96: 60.3}),
        ("v2", 0.75, {224: 69.8, 192: 68.7, 160: 66.4, 128: 63.2, 96: 58.8}),
        ("v2", 0.5, {224: 65.4, 192: 63.9, 160: 61, 128: 57.7, 96: 51.2}),
        ("v2", 0.35, {224: 60.3, 192: 58.2, 160: 55.7, 128: 50.8, 96: 45.5}),
        ("v3_large", 1.0, {224: 75.2}),
        ("v3_large", 0.75, {224: 73.3}),
        ("v3_large_minimalistic", 1.0, {224: 72.3}),
        ("v3_small", 1.0, {224: 67.5}),
        ("v3_small", 0.75, {224: 65.4}),
        ("v3_small_minimalistic", 1.0, {224: 61.9}),
    )),
    Source("arXiv 1905.02244 table 3", "tf", (
        ("v3_large", 1.0, {224: 75.2}),
        ("v3_large", 0.75, {224: 73.3}),
        ("v3_small", 1.0, {224: 67.4}),
        ("v3_small", 0.75, {224: 65.4}),
    )),
    Source("arXiv 2404.10518 table 5", "tf", (
        ("v4_conv_small", 1.0, {224: 73.8}),
        ("v4_conv_medium", 1.0, {256: 79.9}),
        ("v4_hybrid_medium", 1.0, {256: 80.7}),
        ("v4_conv_large", 1.0, {384: 82.9}),
        ("v4_hybrid_large", 1.0, {384: 83.4}),
    )),
    Source("arXiv 2404.10518 table 5, retrained there", "tf", (
        ("v1", 1.0, {224: 74}),
        ("v2", 1.0, {224: 73.4}),
        ("v3_small", 1.0, {224: 69.2}),
    )),
    Source("torchvision IMAGENET1K_V1", "tf", (
        ("v2", 1.0, {224: 71.88}),
        ("v3_large", 1.0, {224: 74.04}),
        ("v3_small", 1.0, {224: 67.67}),
    )),
    Source("torchvision IMAGENET1K_V2", "tf", (
        ("v2", 1.0, {224: 72.15}),
        ("v3_large", 1.0, {224: 75.27}),
    )),
    Source("TensorFlow Model Garden", "tf", (
        ("v1", 1.0, {224: 72.33}),
        ("v2", 1.0, {224: 72.72}),
        ("v3_small", 1.0, {224: 67.5}),
        ("v3_large", 1.0, {224: 75.7}),
        ("v4_conv_small", 1.0, {224: 73.8}),
        ("v4_conv_medium", 1.0, {256: 79.9}),
        ("v4_conv_large", 1.0, {384: 82.92}),
        ("v4_hybrid_medium", 1.0, {256: 80.7}),
        ("v4_hybrid_large", 1.0, {384: 83.7}),
    )),
    Source("d-li14/mobilenetv3.pytorch", "tf", (
        ("v3_large", 1.0, {224: 74.28}),
        ("v3_large", 0.75, {224: 72.84}),
        ("v3_small", 1.0, {224: 67.21}),
        ("v3_small", 0.75, {224: 64.88}),
    )),
    Source("d-li14/mobilenetv2.pytorch", "tf", (
        ("v2", 1.0, {224: 72.83, 192: 71.08, 160: 69.5, 128: 66.74, 96: 62.7}),
        ("v2", 0.75, {224: 69.95}),
        ("v2", 0.5, {224: 64.59}),
        ("v2", 0.35, {224: 60.09}),
        ("v2", 0.25, {224: 52.35}),
    )),
    Source("NobuoTsukamoto/jax_examples (Flax)", "tf", (
        ("v2", 1.0, {224: 71.84}),
        ("v3_small", 1.0, {224: 67.51}),
        ("v3_large", 1.0, {224: 75.22}),
    )),
    Source("timm ix_e600_r384_in1k", "timm", (
        ("v4_hybrid_large", 1.0, {448: 84.35, 384: 84}),
    )),
    Source("timm e600_r384_in1k", "timm", (
        ("v4_hybrid_large", 1.0, {448: 84.26, 384: 83.83}),
        ("v4_conv_large", 1.0, {448: 83.42, 384: 82.97}),
    )),
    Source("timm ix_e550_r384_in1k", "timm", (
        ("v4_hybrid_medium", 1.0, {448: 83.39, 384: 82.95}),
    )),
    Source("timm e500_r256_in1k", "timm", (
        ("v4_conv_large", 1.0, {320: 82.67, 256: 81.86}),
        ("v4_conv_medium", 1.0, {320: 80.89, 256: 79.92}),
    )),
    Source("timm ix_e550_r256_in1k", "timm", (
        ("v4_hybrid_medium", 1.0, {320: 82.5, 256: 81.48}),
    )),
    Source("timm e500_r224_in1k", "timm", (
        ("v4_hybrid_medium", 1.0, {256: 81.28, 224: 80.43}),
        ("v4_conv_medium", 1.0, {256: 79.84, 224: 79.09}),
    )),
    Source("timm ra4_e3600_r224_in1k", "timm", (
        ("v1", 1.25, {256: 77.61, 224: 76.92}),
        ("v3_large", 1.0, {256: 77.18, 224: 76.31}),
        ("v1", 1.0, {256: 76.09, 224: 75.39}),
    )),
    Source("timm ra_in1k", "timm", (
        ("v2", 1.4, {224: 76.53}),
        ("v3_large", 1.0, {224: 75.78}),
        ("v2", 1.0, {224: 72.91}),
    )),
    Source("timm e3600_r256_in1k", "timm", (
        ("v4_conv_small", 1.0, {320: 75.62, 256: 74.53}),
    )),
    Source("TensorFlow checkpoint measured by timm", "tf", (
        ("v3_large", 1.0, {224: 75.51}),
        ("v3_large", 0.75, {224: 73.44}),
        ("v3_large_minimalistic", 1.0, {224: 72.27}),
        ("v3_small", 1.0, {224: 67.92}),
        ("v3_small", 0.75, {224: 65.71}),
        ("v3_small_minimalistic", 1.0, {224: 62.89}),
    )),
    Source("timm e2400_r224_in1k", "timm", (
        ("v4_conv_small", 1.0, {256: 74.64, 224: 73.76}),
    )),
    Source("timm e1200_r224_in1k", "timm", (
        ("v4_conv_small", 1.0, {256: 74.28, 224: 73.45}),
    )),
    Source("timm lamb_in1k", "timm", (
        ("v3_small", 1.0, {224: 67.64}),
        ("v2", 0.5, {224: 65.93}),
        ("v3_small", 0.75, {224: 65.28}),
        ("v3_small", 0.5, {224: 57.92}),
    )),
    Source("timm e3000_r224_in1k", "timm", (
        ("v4_conv_small", 0.5, {256: 65.83, 224: 64.78}),
    )),
)
# fmt: on
