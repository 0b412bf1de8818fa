"""Folders with boxes for the tests of this folder, in each format that labelling tools write."""

import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence

from sample_sets import encode, picture

Objects = Sequence[tuple[str, float, float, float, float]]  # class, x1, y1, x2, y2 in pixels
Images = Mapping[str, tuple[pathlib.Path | bytes, int, int, Objects]]  # name: file, height, width, objects
NAMES = ("ant", "bee", "cat")


def pictures(count: int, first: int = 0) -> dict[str, tuple[bytes, int, int, Objects]]:
    """Images of several sizes with 0 .. 3 objects of the three classes, each inside its picture."""
    made = {}
    for i in range(first, first + count):
        height, width = 60 + i % 7, 80 + i % 5
        objects = [(NAMES[(i + n) % 3], 3 + n, 4 + i % 9, 30 + 7 * n, 40 + n) for n in range(i % 4)]
        made[f"{i:03}.jpg"] = (encode(picture(height, width, seed=i), "JPEG"), height, width, objects)
    return made


def put(file: pathlib.Path, contents: pathlib.Path | bytes | str) -> None:
    """Writes a file, or links one that is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(contents, pathlib.Path):
        shutil.copy(contents, file)
    else:
        file.write_bytes(contents if isinstance(contents, bytes) else contents.encode())


def coco_content(images: Images, names: Sequence[str] = NAMES) -> dict:
    """What a COCO file says of these images."""
    content = {"images": [], "annotations": [], "categories": [{"id": 5 + n, "name": x} for n, x in enumerate(names)]}
    for number, (name, (_, height, width, objects)) in enumerate(images.items(), 100):
        content["images"].append({"id": number, "file_name": name, "height": height, "width": width})
        for kind, x1, y1, x2, y2 in objects:
            one = {"image_id": number, "category_id": 5 + names.index(kind), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            one |= {"id": len(content["annotations"]), "iscrowd": 0, "area": (x2 - x1) * (y2 - y1)}
            content["annotations"].append(one)
    return content


def voc_text(name: str, height: int, width: int, objects: Objects) -> str:
    """What a VOC file says of an image."""
    boxes = "".join(
        f"<object><name>{kind}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for kind, x1, y1, x2, y2 in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{boxes}</annotation>"


def yolo_text(height: int, width: int, objects: Objects, names: Sequence[str] = NAMES, digits: int = 6) -> str:
    """What a YOLO file says of an image: six digits, as most tools write."""
    rows = [
        (names.index(kind), ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height))
        for kind, x1, y1, x2, y2 in objects
    ]
    return "".join(f"{number} {' '.join(f'{v:.{digits}f}' for v in row)}\n" for number, row in rows)


def write_coco(root: pathlib.Path, splits: Mapping[str, Images], names: Sequence[str] = NAMES) -> None:
    """Writes train/_annotations.coco.json beside its images, as Roboflow does."""
    for split, images in splits.items():
        put(root / split / "_annotations.coco.json", json.dumps(coco_content(images, names)))
        for name, (file, *_) in images.items():
            put(root / split / name, file)


def write_voc(root: pathlib.Path, splits: Mapping[str, Images]) -> None:
    """Writes JPEGImages, Annotations and ImageSets/Main, as VOC has them."""
    for split, images in splits.items():
        put(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{pathlib.Path(name).stem}\n" for name in images))
        for name, (file, *rest) in images.items():
            put(root / "JPEGImages" / name, file)
            put(root / "Annotations" / f"{pathlib.Path(name).stem}.xml", voc_text(name, *rest))


def write_yolo(root: pathlib.Path, splits: Mapping[str, Images], names: Sequence[str] = NAMES, digits: int = 6) -> None:
    """Writes images/train, labels/train and data.yaml, as Ultralytics has them; no file where there is no object."""
    put(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\nnc: {len(names)}\nnames: {list(names)}\n")
    for split, images in splits.items():
        for name, (file, height, width, objects) in images.items():
            put(root / "images" / split / name, file)
            if objects:
                text = yolo_text(height, width, objects, names, digits)
                put(root / "labels" / split / f"{pathlib.Path(name).stem}.txt", text)


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo}
