"""SSDLite on MobileNetV1 on COCO at 320 px: the recipe of configs/ssdlite_v2.py.

    python train.py --config configs/ssdlite_v1.py --config.init.weights=SOURCE --config.data.data_dir=gs://BUCKET/tfds

Published: 22.2 on COCO's test-dev (MobileNetV2's paper, table 6). Nobody has run this one to the end yet.
"""

import ml_collections

from mnet_jax.config import load
from mnet_jax.models.heads.tables import find_detector


def get_config() -> ml_collections.ConfigDict:
    """The detector, its focal loss, momentum and cosine."""
    config = load("ssdlite_v2")
    config.update_from_flattened_dict(find_detector("ssdlite320_v1_tf").settings)
    return config
