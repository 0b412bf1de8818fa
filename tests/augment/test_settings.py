"""The config's section and the record of it, and one clear line for values that are not allowed."""

import dataclasses
import math
import re

import pytest

from mnet_jax.augment.settings import Augmentation
from mnet_jax.config import validate
from mnet_jax.schema import RANGES, get_config


def test_the_schema_and_the_record_have_the_same_fields_and_defaults():
    section = get_config().augment
    assert set(section) == {field.name for field in dataclasses.fields(Augmentation)}
    settings = Augmentation(**section)
    assert settings == Augmentation()
    assert hash(settings) == hash(Augmentation())


def test_the_config_checks_every_field():
    fields = {field.name for field in dataclasses.fields(Augmentation)}
    assert {name for name in RANGES if name.startswith("augment.")} == {f"augment.{name}" for name in fields}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("brightnes", 0.4, "unknown config field 'augment.brightnes'. Did you mean 'augment.brightness'?"),
        ("hue", 0.7, "augment.hue=0.7: it must be at least 0 and at most 0.5"),
        ("hue", "0.1", "augment.hue='0.1': it must be a number"),
        ("brightness", -0.1, "augment.brightness=-0.1: it must be at least 0 and at most 1"),
        ("contrast", None, "augment.contrast=None: "),
        ("saturation", 1.5, "augment.saturation=1.5: it must be at least 0 and at most 1"),
        ("mixup_alpha", math.nan, "augment.mixup_alpha=nan: it must be at least 0 and at most 100"),
        ("cutmix_alpha", math.inf, "augment.cutmix_alpha=inf: it must be at least 0 and at most 100"),
        ("mix_prob", 1.1, "augment.mix_prob=1.1: it must be at least 0 and at most 1"),
        ("erase_prob", 25.0, "augment.erase_prob=25.0: it must be at least 0 and at most 1"),
        ("randaugment_layers", 1.5, "augment.randaugment_layers=1.5: it must be a whole number"),
        ("randaugment_layers", 17, "augment.randaugment_layers=17: it must be at least 0 and at most 16"),
        ("randaugment_magnitude", 15.0, "augment.randaugment_magnitude=15.0: it must be at least 0 and at most 10"),
        ("randaugment_prob", [1.0], "augment.randaugment_prob=[1.0]: it must be a number"),
    ],
)
def test_errors_say_what_was_given_and_what_is_allowed(field, value, message):
    config = get_config()
    with config.augment.unlocked(), config.augment.ignore_type():
        config.augment[field] = value
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        validate(config)
    assert "\n" not in str(caught.value)
