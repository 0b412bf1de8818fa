"""Trains a MobileNet: `python train.py [--config configs/v3_large.py] [--workdir DIR] [--config.FIELD=VALUE ...]`."""

import sys

from mnet_jax.training.command import main

if __name__ == "__main__":
    sys.exit(main())
