"""Every network that has a name: architectures, detectors and segmenters. Pure Python, no jax."""

from mnet_jax.errors import check_choice
from mnet_jax.models.heads.mask_tables import SEGMENTERS, SegmenterSpec
from mnet_jax.models.heads.tables import DETECTORS, DetectorSpec
from mnet_jax.models.specs import ModelSpec
from mnet_jax.models.tables import SPECS


def find_network(name: str) -> ModelSpec | DetectorSpec | SegmenterSpec:
    """Returns the architecture, the detector or the segmenter of that name.

    Raises:
      ValueError: if there is none of them; lists all and names the nearest.
    """
    check_choice("model", name, (*SPECS, *DETECTORS, *SEGMENTERS))
    return SPECS.get(name) or DETECTORS.get(name) or SEGMENTERS[name]
