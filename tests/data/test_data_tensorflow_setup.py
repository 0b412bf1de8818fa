"""TensorFlow as the host uses it: started without Keras, which comes when somebody asks for it."""

import subprocess
import sys

CODE = """
import sys
from mnet_jax.data import tensorflow_setup
import tensorflow as tf
assert "keras" not in sys.modules
assert tf.io.decode_jpeg is not None
from tensorflow.keras import layers
assert layers.Dense is tf.keras.layers.Dense
assert None not in tf.__path__
"""


def test_keras_is_not_imported_and_still_there():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
