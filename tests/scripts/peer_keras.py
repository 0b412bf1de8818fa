"""Keras's own network on the backend of KERAS_BACKEND; prints one JSON document. Keras has v1, v2 and v3."""

import os

import keras
import numpy as np
from clock import options, report

APPLICATIONS = {"v1": "MobileNet", "v2": "MobileNetV2", "v3_large": "MobileNetV3Large", "v3_small": "MobileNetV3Small"}


def main():
    args = options()
    side = args.image_size
    model = getattr(keras.applications, APPLICATIONS[args.model])(weights=None, input_shape=(side, side, 3))
    model.compile(keras.optimizers.RMSprop(1e-3, rho=0.9, momentum=0.9, epsilon=0.002), "categorical_crossentropy")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.batch_size, side, side, 3), np.float32)
    labels = np.eye(1000, dtype=np.float32)[rng.integers(0, 1000, args.batch_size)]
    if args.mode == "train":

        def run():
            model.train_on_batch(images, labels)

    else:

        def run():
            model.predict_on_batch(images)

    report(run, args, peer=f"keras {keras.__version__} on {os.environ.get('KERAS_BACKEND', 'tensorflow')}")


main()
