"""Averages that take a stride over from a convolution, as anti-aliased networks have them. Pure Python, no jax.

Windows of 2 x 2, the last of which strides: "average" is one of them; "blur" is two, which weigh three neighbours 1, 2
and 1, with a zero around the map (arXiv 1904.11486, binomial of size 3). timm's create_aa says "avg" and "blurpc".
"""

WINDOWS = {"average": 1, "blur": 2}
POOLS = tuple(WINDOWS)


def taps(pool: str) -> tuple[float, ...]:
    """Returns the weights along one side of the whole average, which come to 1."""
    return (0.5, 0.5) if WINDOWS[pool] == 1 else (0.25, 0.5, 0.25)


def padding(pool: str) -> int:
    """Returns how many zeros stand on either side of the map, whatever the network's padding."""
    return WINDOWS[pool] - 1


def pooled(size: tuple[int, int], pool: str, stride: int) -> tuple[int, int]:
    """Returns the size of the result for a map of `size`: "blur" rounds up as convolutions do, "average" down."""
    left = 2 * padding(pool) - len(taps(pool))
    return (size[0] + left) // stride + 1, (size[1] + left) // stride + 1
