"""`digits`: the 1,797 real handwritten digits that scikit-learn ships, as an offline TFDS set.

8x8 pixels, from the UCI set "Optical recognition of handwritten digits".
"""

import contextlib
import io
import pathlib
import tempfile

import numpy as np

VERSION = "1.0.1"
NUM_TEST = 360  # one in five, and the rest, 1,437, is for training


def is_test(labels: np.ndarray) -> np.ndarray:
    """Returns which rows are the test set, bool [N]: 36 of each class (of 174 to 183), spread evenly over them."""
    per_class = NUM_TEST // 10
    test = np.zeros(len(labels), bool)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        test[rows[np.arange(per_class) * len(rows) // per_class]] = True
    return test


def prepare(data_dir: str) -> str:
    """Returns where the TFDS set `digits` is; it is written first if it is not there.

    Several processes may do so at once. It goes under `data_dir`, or, where that is a bucket, under ~/.cache: it is
    small and every machine can make it.
    """
    directory = "~/.cache/mnet_jax" if "://" in data_dir else data_dir
    target = pathlib.Path(directory).expanduser() / "digits" / VERSION
    if target.exists():
        return str(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".digits-", dir=target.parent) as part:
            _build(part)
            try:  # other processes see all of it or nothing
                (pathlib.Path(part) / "digits" / VERSION).rename(target)
            except OSError:
                if not target.exists():  # otherwise another process was first, with the same files
                    raise
    except OSError as error:
        raise ValueError(f"cannot write the digits to {target} ({error.strerror}): set data.data_dir") from error
    return str(target)


def _build(data_dir: str) -> None:
    import tensorflow_datasets as tfds
    from sklearn.datasets import load_digits

    import mnet_jax.data.tensorflow_setup  # noqa: F401  (before TFDS imports tensorflow)

    class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """scikit-learn's handwritten digits."""

        name = "digits"
        VERSION = tfds.core.Version(VERSION)
        pkg_dir_path = pathlib.Path(__file__).parent
        # TFDS 4.9.10 would look for a list of checksums beside this file, with a package that it does not require.
        code_path = None

        def _info(self) -> tfds.core.DatasetInfo:
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(i) for i in range(10)]),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
            raw = load_digits()
            test = is_test(raw.target)
            return {"train": self._examples(raw, ~test), "test": self._examples(raw, test)}

        def _examples(self, raw: dict, rows: np.ndarray) -> dict:
            pixels = np.round(raw.images * (255 / 16)).astype(np.uint8)[..., None]  # stored as counts 0 .. 16
            return {int(i): {"image": pixels[i], "label": int(raw.target[i])} for i in np.flatnonzero(rows)}.items()

        def _generate_examples(self) -> None:
            raise AssertionError("the splits bring their examples")  # abstract in the base class

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints about downloads; there are none
        Digits(data_dir=data_dir).download_and_prepare()
