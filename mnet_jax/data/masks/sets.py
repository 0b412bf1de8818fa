"""What TFDS does not say of its sets with pixel maps: which feature is the map, and which class each value is."""

from __future__ import annotations

import dataclasses

_VOID = 255


@dataclasses.dataclass(frozen=True)
class SetFacts:
    """The map of one set."""

    feature: str
    names: tuple[str, ...]
    lookup: tuple[int, ...]  # the class of each value from 0 on; 255 for void, as for all values beyond


# The 19 classes that are judged, in their order (cityscapesScripts, helpers/labels.py), and the id of each.
_CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_CITYSCAPES_IDS = list(_CITYSCAPES.values())

# objectInfo150.txt of the Scene Parsing Benchmark: the first word of each of the 150 classes; 0 is void.
_SCENE_PARSE = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip

KNOWN = {
    # the README of the set: 1 is the animal, 2 the background, 3 the border, which nobody classified
    "oxford_iiit_pet": SetFacts("segmentation_mask", ("pet", "background", "border"), (_VOID, 0, 1, 2)),
    "cityscapes": SetFacts(
        "segmentation_label",
        tuple(_CITYSCAPES),
        tuple(_CITYSCAPES_IDS.index(i) if i in _CITYSCAPES_IDS else _VOID for i in range(34)),
    ),
    "scene_parse150": SetFacts("annotation", _SCENE_PARSE, (_VOID, *range(150))),
}
