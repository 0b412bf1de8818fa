"""A set of TFDS's catalogue, downloaded and prepared by TFDS; its errors become one line that says what to do."""

import logging
import os

import ml_collections
import tensorflow_datasets as tfds

from mnet_jax.data import tfds_set


def is_there(data: ml_collections.ConfigDict) -> bool:
    """Returns whether the set that `data` names is prepared in its TFDS directory, or nobody could put it there."""
    try:
        tfds_set.open_builder(data)
    except ValueError:
        return data.name.split("/")[0].split(":")[0] not in tfds.list_builders()
    return True


def is_small(data: ml_collections.ConfigDict) -> bool:
    """Returns whether all images of a set of the catalogue have one size: there is nothing to shrink then."""
    try:
        features = _builder(data, tfds_set.data_dir(data)).info.features
    except ImportError as error:
        raise ValueError(_needs(data.name, error)) from error
    image = features.get("image") if isinstance(features, tfds.features.FeaturesDict) else None
    return image is None or None not in (image.shape or (None,))[:2]


def fetch(data: ml_collections.ConfigDict, directory: str) -> tuple[str, int]:
    """Returns where a set is under a TFDS directory, and its number of examples; what is not there is downloaded.

    Raises:
      ValueError: if it cannot be downloaded or prepared; says why.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # ten lines for a host that is not reached
    try:
        builder = _builder(data, os.path.expanduser(directory))
        builder.download_and_prepare()
    except ImportError as error:
        raise ValueError(_needs(data.name, error)) from error
    except AssertionError as error:  # TFDS's own for a set that its owner hands out after registration
        raise ValueError(f"{data.name} cannot be downloaded by a program: {_first(error)}") from error
    except (tfds.download.DownloadError, OSError, ValueError) as error:  # requests' errors are OSErrors
        raise ValueError(
            f"{data.name} cannot be downloaded to {directory}: {_cause(error)}. On a machine without the network: run "
            f"the same command on another one, copy {builder.name}/ from there and give its place as --data_dir"
        ) from error
    return str(builder.data_dir), sum(split.num_examples for split in builder.info.splits.values())


def _builder(data: ml_collections.ConfigDict, directory: str) -> tfds.core.DatasetBuilder:
    return tfds.builder(data.name, data_dir=directory)


def _needs(name: str, error: ImportError) -> str:
    package = (error.name or "").split(".")[0]
    install = f"type: pip install {package.replace('_', '-')}" if package else _first(error)
    return f"TFDS needs a package that is not here to prepare {name}: {install}"


def _cause(error: BaseException) -> str:
    """Returns what the error at the bottom says, shortened: those above repeat it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return _first(error)


def _first(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'...' if len(text) > 200 else ''}"
