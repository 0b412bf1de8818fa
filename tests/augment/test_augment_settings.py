"""The config's section: what it accepts, and one clear line for what it does not."""

import dataclasses
import math
import re

import pytest
from ml_collections import ConfigDict

from mnet_jax.augment.settings import AugmentConfig
from mnet_jax.schema import get_config


def test_the_schema_and_the_record_have_the_same_fields_and_defaults():
    section = get_config().augment
    assert set(section) == {field.name for field in dataclasses.fields(AugmentConfig)}
    config = AugmentConfig.from_config(section)
    assert config == AugmentConfig()
    assert hash(config) == hash(AugmentConfig())


def test_a_partial_section_keeps_the_other_defaults():
    config = AugmentConfig.from_config(ConfigDict({"hue": 0.1, "randaugment_layers": 2}))
    assert (config.hue, config.randaugment_layers, config.erase_prob) == (0.1, 2, 0.0)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"brightnes": 0.4}, "augment.brightnes is not a field; did you mean augment.brightness?"),
        ({"zzz": 1}, "augment.zzz is not a field; allowed: brightness, contrast, saturation, hue"),
        ({"hue": 0.7}, "augment.hue is 0.7; it must be a number from 0.0 to 0.5"),
        ({"hue": "0.1"}, "augment.hue is '0.1'; it must be a number from 0.0 to 0.5"),
        ({"brightness": -0.1}, "augment.brightness is -0.1"),
        ({"contrast": None}, "augment.contrast is None"),
        ({"saturation": True}, "augment.saturation is True"),
        ({"mixup_alpha": math.nan}, "augment.mixup_alpha is nan"),
        ({"cutmix_alpha": math.inf}, "augment.cutmix_alpha is inf"),
        ({"mix_prob": 1.1}, "augment.mix_prob is 1.1; it must be a number from 0.0 to 1.0"),
        ({"erase_prob": 25}, "augment.erase_prob is 25"),
        ({"randaugment_layers": 1.5}, "augment.randaugment_layers is 1.5; it must be a whole number from 0 to 16"),
        (
            {"randaugment_magnitude": 15.0},
            "augment.randaugment_magnitude is 15.0; it must be a number from 0.0 to 10.0",
        ),
        ({"randaugment_prob": [1.0]}, "augment.randaugment_prob is [1.0]"),
    ],
)
def test_errors_say_what_was_given_and_what_is_allowed(section, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        AugmentConfig.from_config(section)
    assert "\n" not in str(caught.value)
