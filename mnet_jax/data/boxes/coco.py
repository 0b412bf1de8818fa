"""COCO JSON, as COCO itself, Roboflow, CVAT and Label Studio write it: one file for a split, or one for all images.

Read of it: `images` (id, file_name; height and width if there), `categories` (id, name) and of `annotations` image_id,
category_id, bbox [x, y, width, height] in pixels, iscrowd and area; for masks (`masks/`) segmentation. Annotations of
keypoints and captions are not needed, ids of annotations neither.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Iterator

from mnet_jax.data.boxes.found import Fault, Found, Labelled, Object, Tree, number
from mnet_jax.data.folder import LeftOut
from mnet_jax.data.layout import split_of

_MOST = 2 << 30  # bytes; that of train2017 has 0.45 GiB
_OTHERS = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")  # COCO's files beside instances_
HINT = "bbox must be [x, y, width, height] in pixels of the picture, x and y of its upper left corner"

Json = dict


def read(tree: Tree) -> Found | None:
    """Returns the images of all COCO files of a folder; None if there are none.

    Raises:
      ValueError: if a file that must be one cannot be read, or its categories make no list of classes.
    """
    files = tree.with_suffix(".json")
    if any(os.path.basename(file).startswith("instances_") for file in files):
        files = [file for file in files if not os.path.basename(file).startswith(_OTHERS)]
    loaded = {file: value for file in files if (value := _load(tree, file)) is not None}
    if not loaded:
        return None
    by_split: dict[str, str] = {}
    for file in loaded:
        if (other := by_split.setdefault(split_of(file), file)) != file:
            what = f"are both for {split_of(file)!r}" if split_of(file) else "both say no split in their names"
            raise ValueError(
                f"{tree.root}: {other} and {file} {what}: keep one, or name them after their splits, such as "
                "train.json, val.json and test.json"
            )
    names, left_out, images = _class_names(tree, loaded), [], []
    for file, content in loaded.items():
        images += _images(tree, file, content, left_out)
    listed = {image.path for image in images} | {one.path for one in left_out}
    left_out += [LeftOut(file, "in no COCO file") for file in tree.beside(listed)]
    return Found("COCO JSON", HINT, True, names, tuple(images), tuple(left_out))


def _load(tree: Tree, file: str) -> Json | None:
    """Returns the content of a COCO file with boxes; None if it is another kind of JSON."""
    try:
        text = tree.text(file, _MOST)
        if '"annotations"' not in text or '"images"' not in text:
            return None
        content = json.loads(text)
    except (Fault, ValueError, RecursionError) as error:
        why = f"is no JSON ({error})" if isinstance(error, ValueError) else str(error) or "is nested too deep"
        raise ValueError(
            f"{tree.path(file)} {why}: a COCO file expected; take it out of the folder if it is none"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        return None
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{tree.path(file)} has no list {key!r}: COCO has images, annotations and categories")
    return content


def _class_names(tree: Tree, loaded: dict[str, Json]) -> tuple[str, ...]:
    """Returns the names of the categories, in the order of the training file, then those that only others have."""
    names: dict[str, None] = {}
    for file in sorted(loaded, key=lambda file: (split_of(file) not in ("", "train"), file)):
        found = _categories(tree, file, loaded[file])
        names |= dict.fromkeys(found.values())
    return tuple(names)


def _categories(tree: Tree, file: str, content: Json) -> dict[int, str]:
    """Returns {id: name} of a file, in its order.

    A category that no annotation has and that is the supercategory of another is none: Roboflow puts such a one first.
    """
    names: dict[int, str] = {}
    for at, category in enumerate(content["categories"]):
        named = isinstance(category, dict) and isinstance(category.get("name"), str) and category["name"].strip()
        if not named or not isinstance(category.get("id"), int):
            raise ValueError(f"{tree.path(file)}: categories[{at}] must have an id (whole number) and a name")
        name = category["name"].strip()
        if category["id"] in names or name in names.values():
            what = f"id {category['id']}" if category["id"] in names else f"name {name!r}"
            raise ValueError(f"{tree.path(file)}: two categories have the {what}: give each its own")
        names[category["id"]] = name
    used = {one.get("category_id") for one in content["annotations"] if isinstance(one, dict)}
    above = {
        one["supercategory"]
        for one in content["categories"]
        if isinstance(one.get("supercategory"), str) and one["supercategory"] != one["name"]
    }
    return {key: name for key, name in names.items() if key in used or name not in above}


def _images(tree: Tree, file: str, content: Json, left_out: list[LeftOut]) -> Iterator[Labelled]:
    """Yields the images of one file; adds what cannot be used to `left_out`."""
    names, split = _categories(tree, file, content), split_of(file)
    times = collections.Counter(_key(image.get("id")) for image in content["images"] if isinstance(image, dict))
    annotations = collections.defaultdict(list)
    for at, one in enumerate(content["annotations"]):
        key = _key(one.get("image_id")) if isinstance(one, dict) else None
        where = f"annotation {one['id']}" if isinstance(one, dict) and _key(one.get("id")) else f"annotations[{at}]"
        if key is None or key not in times:
            what = f"no image has the id {one.get('image_id')!r}" if isinstance(one, dict) else "is no record"
            left_out.append(LeftOut(file, f"{where}: {what}"))
        else:
            annotations[key].append((where, one))
    for at, image in enumerate(content["images"]):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not name or _key(image.get("id")) is None:
            left_out.append(LeftOut(file, f"images[{at}] has no id or no file_name"))
            continue
        path = name
        try:
            path = tree.named(name, file, split)
            if times[_key(image["id"])] > 1:
                raise Fault(f"{file} has several images with the id {image['id']}")
            objects = tuple(_object(where, one, names) for where, one in annotations[_key(image["id"])])
            yield Labelled(path, file, split, objects, _size(image))
        except Fault as fault:
            left_out.append(
                LeftOut(path, str(fault) if path != name or path in tree.known else f"missing, named in {file}")
            )


def _key(value: object) -> str | None:
    """Returns an id; some tools write text for numbers."""
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _size(image: Json) -> tuple[int, int] | None:
    height, width = number(image.get("height")), number(image.get("width"))
    return (int(height), int(width)) if height and width else None


def _object(where: str, one: Json, names: dict[int, str]) -> Object:
    name = names.get(one["category_id"]) if isinstance(one.get("category_id"), int) else None
    if name is None:
        raise Fault(f"{where}: no category has the id {one.get('category_id')!r}")
    box = one.get("bbox")
    numbers = [number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise Fault(f"{where}: bbox {str(box)[:60]} is not four numbers")
    x, y, width, height = numbers
    area = number(one.get("area"))
    crowd = number(one.get("iscrowd", 0))
    area = area if area and area > 0 else None
    return Object(name, (x, y, x + width, y + height), where, bool(crowd), area, one.get("segmentation"))
