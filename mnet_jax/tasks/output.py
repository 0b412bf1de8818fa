"""What a task says of its exported network: of a result, for whoever reads the file's metadata, and of a comparison."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

Results = np.ndarray | dict[str, np.ndarray]  # one as it is, several by name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """One result, which a graph has under some name."""

    title: str  # "probability"
    text: str  # a sentence for people
    range: tuple[float, float] | None = None  # what its values cannot leave
    labels: str | None = None  # what the label file is of: "axis": of its last axis, "values": of its values, from 0
    boxes: bool = False  # whether its rows are (y1, x1, y2, x2), as shares of the image's sides
    thresholds: bool = False  # whether a class is there from its own score on: the file's metadata say which
    softmax: bool = False  # whether a segmenter is to make probabilities of it, over its last axis
    group: str | None = None  # of results that belong together, row by row: what a row is


class Comparison(abc.ABC):
    """What a network and the file that was made of it say of the same images, added up."""

    num_images: int = 0

    @abc.abstractmethod
    def add(self, expected: Results, found: Results, batch: Mapping[str, np.ndarray]) -> None:
        """Takes the results [N, ...] of the network and of the file, and what else is known of the images.

        `batch` has `crop` int32 [N, 11], and the annotations where there are any.
        """

    @abc.abstractmethod
    def result(self) -> dict[str, Any]:
        """Returns the figures by name, with "num_images"."""

    @abc.abstractmethod
    def lines(self) -> list[str]:
        """Returns the figures for people, each line a word of up to 9 letters and what it says."""
