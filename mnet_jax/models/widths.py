"""How a network becomes wider or narrower: the only place that rounds a width. Pure Python, no jax."""

import dataclasses


def make_divisible(value: float, divisor: int = 8) -> int:
    """Returns the nearest multiple of `divisor`, at least one, never below 0.9 of `value` (slim's mobilenet.py)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclasses.dataclass(frozen=True, kw_only=True)
class WidthRule:
    """How one library widens or narrows a network; the default is TensorFlow's (slim, model garden)."""

    rounded: bool = True  # to multiples of 8 by `make_divisible`; otherwise max(int(features * width), 8)
    whole_below_one: bool = False  # at multipliers below 1 to whole numbers only, but for what blocks have inside
    stem_fixed_below: float = 0.0  # the stem keeps its features at widths below this
    expand_from_input: bool = True  # inner width = ratio * the rounded input; otherwise it scales by itself
    last_conv: str = "scale"  # "scale", "grow" (never below its features at width 1) or "from_input" (ratio * input)
    head: str = "grow"  # "scale", "grow" or "fixed"


@dataclasses.dataclass(frozen=True)
class Widths:
    """A width multiplier under one library's rule. `features` are always those of the paper's table, at width 1."""

    rule: WidthRule
    multiplier: float

    def scale(self, features: int, how: str = "scale") -> int:
        """Returns a layer's features: "scale" with the multiplier, "grow" only, or "fixed"."""
        if how == "fixed":
            return features
        scaled = features * (max(self.multiplier, 1.0) if how == "grow" else self.multiplier)
        divisor = 1 if self.rule.whole_below_one and self.multiplier < 1 else 8
        return make_divisible(scaled, divisor) if self.rule.rounded else max(int(scaled), 8)

    def stem(self, features: int) -> int:
        """Returns the features of the stem."""
        return self.scale(features, "fixed" if self.multiplier < self.rule.stem_fixed_below else "scale")

    def expanded(self, features: int, *, of: int, into: int) -> int:
        """Returns the width inside a block that the table expands from `of` to `features`, where it gets `into`."""
        if features == of:
            return into
        return make_divisible(into * features / of) if self.rule.expand_from_input else self.scale(features)

    def last_conv(self, features: int, *, of: int, into: int) -> int:
        """Returns the features of the last convolution, which gets `into` where the table says `of`."""
        if self.rule.last_conv == "from_input":
            return into * features // of
        return self.scale(features, self.rule.last_conv)

    def head(self, features: int) -> int:
        """Returns the features of the layer between pooling and classifier."""
        return self.scale(features, self.rule.head)
