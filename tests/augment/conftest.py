"""Real photographs for the augmentation tests."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """uint8 [4, 120, 160, 3]: two views each of the photographs that scikit-learn ships."""
    views = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name))
        views += [photo.resize((160, 120)), photo.crop((200, 120, 360, 240))]
    return np.stack([np.asarray(view) for view in views])
