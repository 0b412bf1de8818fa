"""What a run knows about its data set: splits, sizes, classes, and the statistics of its pixels."""

import dataclasses

import ml_collections

Channels = tuple[float, float, float]
Statistics = tuple[Channels, Channels]

# Mean and standard deviation per channel (red, green, blue) of pixels in 0 .. 255. ImageNet's are those of torchvision,
# timm and Flax's example; CIFAR's are over all training pixels; other sets take ImageNet's.
IMAGENET: Statistics = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_STATISTICS: dict[str, Statistics] = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a run needs to know about its data."""

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    num_train: int
    num_eval: int
    train_split: str
    eval_split: str
    mean: Channels
    std: Channels

    @classmethod
    def made_up(
        cls,
        num_classes: int,
        *,
        name: str = "random",
        class_names: tuple[str, ...] | None = None,
        num_train: int = 1_281_167,
        num_eval: int = 50_000,
        eval_split: str = "validation",
        statistics: Statistics = IMAGENET,
    ) -> "DatasetInfo":
        """Returns the description of a set that need not exist; unless told otherwise it is as large as ImageNet.

        Args:
          num_classes: how many.
          name: of the set.
          class_names: None: the numbers of the classes.
          num_train: examples to train on.
          num_eval: examples to evaluate on.
          eval_split: its name.
          statistics: mean and standard deviation of the pixels.
        """
        mean, std = statistics
        return cls(
            name=name,
            num_classes=num_classes,
            class_names=tuple(map(str, range(num_classes))) if class_names is None else class_names,
            num_train=num_train,
            num_eval=num_eval,
            train_split="train",
            eval_split=eval_split,
            mean=mean,
            std=std,
        )


@dataclasses.dataclass(frozen=True)
class Published:
    """The sizes of a data set as its authors publish them."""

    num_classes: int
    num_train: int
    num_eval: int
    eval_split: str


PUBLISHED = {
    "imagenet2012": Published(1000, 1_281_167, 50_000, "validation"),
    "cifar10": Published(10, 50_000, 10_000, "test"),
    "cifar100": Published(100, 50_000, 10_000, "test"),
    "coco/2017": Published(80, 118_287, 5_000, "validation"),
}


def imagenet_classes() -> tuple[str, ...]:
    """Returns the readable names of ImageNet's 1,000 classes, in their order."""
    from mnet_jax.data.imagenet_names import NAMES

    return tuple(NAMES.values())


def statistics(name: str) -> Statistics:
    """Returns mean and standard deviation per channel of the pixels of the set that `data.name` names."""
    return _STATISTICS.get(name.partition(":")[0], IMAGENET)


def published(data: ml_collections.ConfigDict) -> DatasetInfo | None:
    """Returns ImageNet, CIFAR or COCO as published, without looking for files; None for other sets and splits.

    For what needs no images, such as compiling for a machine elsewhere. The classes' names are their numbers.
    """
    found = PUBLISHED.get(data.name)
    if found is None or data.train_split or data.eval_split:
        return None
    return DatasetInfo.made_up(
        found.num_classes,
        name=data.name,
        num_train=found.num_train,
        num_eval=found.num_eval,
        eval_split=found.eval_split,
        statistics=statistics(data.name),
    )
