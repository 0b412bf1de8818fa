"""Made-up copies of ImageNet in each form that people hold it in, all with the same images."""

import io
import json
import pathlib
import tarfile
from collections.abc import Callable

import numpy as np
from PIL import Image
from sample_sets import encode, picture

from mnet_jax.data.imagenet import facts

Images = dict[str, tuple[str, bytes]]  # file name -> (class, encoded)
CLASSES = (0, 1, 151, 999)  # few, spread over all: a chihuahua's folder held ImageNet's PNG


def images() -> dict[str, Images]:
    """By split: JPEGs, large and small, grey, CMYK, and a PNG called JPEG."""
    train, validation = {}, {}
    for i in range(24):
        wnid = facts.WNIDS[CLASSES[i % 4]]
        train[f"{wnid}_{10 + i}.JPEG"] = (wnid, _encoded(i))
    for i in range(9):
        number = 100 * i + 1
        validation[f"ILSVRC2012_val_{number:08}.JPEG"] = (facts.validation_wnids()[number - 1], _encoded(50 + i))
    return {"train": train, "validation": validation}


def real_images(sample: pathlib.Path) -> dict[str, Images]:
    """Of the real sample's training images, called as ImageNet's; one as CMYK and one as PNG."""
    found = {}
    with tarfile.open(sample / "imagenet_train_1000.tar") as archive:
        for member in archive.getmembers()[:40]:
            wnid, contents = member.name[:9], archive.extractfile(member).read()
            if len(found) in (3, 4):
                pixels = Image.open(io.BytesIO(contents))
                contents = encode(pixels, "PNG") if len(found) == 3 else encode(pixels.convert("CMYK"), "JPEG")
            found[f"{wnid}_7.JPEG"] = (wnid, contents)
    return {"train": found, "validation": images()["validation"]}


def _encoded(seed: int) -> bytes:
    pixels = picture(34 + 3 * seed % 40, 40 + seed, seed=seed)
    if seed % 8 == 5:
        return encode(pixels, "PNG")
    if seed % 8 == 6:
        return encode(Image.fromarray(pixels).convert("CMYK"), "JPEG")
    return encode(pixels if seed % 8 != 7 else pixels[..., 0], "JPEG")


def write_archives(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes the two archives of image-net.org: tars of the classes in a tar, and a flat one."""
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid in sorted({wnid for wnid, _ in made["train"].values()}):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for name, (other, contents) in made["train"].items():
                    if other == wnid:
                        add(archive, name, contents)
            add(outer, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        for name, (_, contents) in reversed(
            made["validation"].items()
        ):  # not in the order of the names, as the real one
            add(archive, name, contents)


def write_tree(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes train/<wnid> and val/<wnid>, with a folder for each of the 1,000 classes."""
    for wnid in facts.WNIDS:
        (root / "train" / wnid).mkdir(parents=True)
    _write_files(root / "train", made["train"])
    _write_files(root / "val", made["validation"])


def write_flat(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes train/<wnid> and a val/ whose images lie in one folder."""
    _write_files(root / "train", made["train"])
    _write_files(root / "val", made["validation"], flat=True)


def write_kaggle(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes Kaggle's layout, with the classes of validation images in a list."""
    _write_files(root / "ILSVRC/Data/CLS-LOC/train", made["train"])
    _write_files(root / "ILSVRC/Data/CLS-LOC/val", made["validation"], flat=True)
    rows = [f"{name[:-5]},{wnid} 85 1 499 272 " for name, (wnid, _) in made["validation"].items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


def write_parquet(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes Parquet files as the hub's `imagenet-1k` has them."""
    import pyarrow
    from pyarrow import parquet

    (root / "data").mkdir(parents=True)
    for split, found in made.items():
        for part in range(2):
            rows = list(found.items())[part::2]
            column = [{"bytes": encoded, "path": f"{name[:-5]}_{wnid}.JPEG"} for name, (wnid, encoded) in rows]
            labels = [facts.WNIDS.index(wnid) for _, (wnid, _) in rows]
            table = pyarrow.table({"image": column, "label": labels})
            parquet.write_table(table, root / f"data/{split}-{part:05}-of-00002.parquet", row_group_size=5)


def write_webdataset(root: pathlib.Path, made: dict[str, Images]) -> None:
    """Writes tars as the hub's `timm/imagenet-1k-wds` has them; the second of a split has labels in JSON only."""
    root.mkdir(parents=True)
    for split, found in made.items():
        for part in range(2):
            with tarfile.open(root / f"imagenet1k-{split}-{part:04}.tar", "w") as archive:
                for name, (wnid, encoded) in list(found.items())[part::2]:
                    label = facts.WNIDS.index(wnid)
                    about = {"label": label, "filename": f"{wnid}/{name}"}
                    if part == 0:
                        add(archive, f"{name[:-5]}.cls", str(label).encode())
                    add(archive, f"{name[:-5]}.jpg", encoded)
                    if part == 1:
                        add(archive, f"{name[:-5]}.json", json.dumps(about).encode())


WRITERS: dict[str, Callable[[pathlib.Path, dict[str, Images]], None]] = {
    "archives": write_archives,
    "tree": write_tree,
    "flat": write_flat,
    "kaggle": write_kaggle,
    "parquet": write_parquet,
    "webdataset": write_webdataset,
}


def add(archive: tarfile.TarFile, name: str, contents: bytes) -> None:
    """Adds a file to an archive; its time is a fraction, for which `tarfile` writes a header of its own."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(contents), 1.5
    archive.addfile(info, io.BytesIO(contents))


def _write_files(root: pathlib.Path, found: Images, *, flat: bool = False) -> None:
    for name, (wnid, contents) in found.items():
        place = root if flat else root / wnid
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(contents)


def pixels(contents: bytes) -> np.ndarray:
    """The image as Pillow decodes it."""
    return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
