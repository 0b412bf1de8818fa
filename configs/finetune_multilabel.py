"""Fine-tuning on your own photos with any number of labels each: published weights, or a checkpoint of yours.

    python train.py --config configs/finetune_multilabel.py --config.init.weights=SOURCE --config.data.folder=photos

`photos` has a CSV, `photos/labels.csv` with a row `file,label` for each class of a photo (or `file,ant;bee`, or a
column of 0 and 1 for each class), folders of classes with the same photo in several of them, or labels with boxes. Any
data set of TFDS with a sequence of labels or with boxes works too: --config.data.name=voc/2007
--config.data.folder=None. docs/multilabel.md says more.
The architecture and how images are prepared are those of the weights. The backbone stays as it is, as in
configs/finetune.py. The run is judged by mean average precision; the score from which a class is there is chosen for
each class in evaluation, and `mnet predict` and `mnet export` use it.
"""

import ml_collections

from mnet_jax.config import load


def get_config() -> ml_collections.ConfigDict:
    """A sigmoid for each class on the features of a frozen backbone, with early stopping."""
    config = load("finetune")
    config.task.name = "multilabel"
    return config
