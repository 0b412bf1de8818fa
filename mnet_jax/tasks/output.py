"""What a task says of a result of its exported network, for whoever reads the file's metadata."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
    """One result, which a graph has under some name."""

    title: str  # "probability"
    text: str  # a sentence for people
    range: tuple[float, float] | None = None  # what its values cannot leave
    per_class: bool = False  # whether its last axis is the classes, in the order of the label file
