"""Sides of maps, and the zeros around them. Pure Python, no jax."""


def output_size(size: int, stride: int) -> int:
    """Returns the side of a map after a convolution; the same for both paddings, because kernels are odd."""
    return -(-size // stride)


def explicit_padding(padding: str, size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Returns the zeros (before, after) along one side of `size` pixels, for a kernel with taps `dilation` apart.

    "same" is TensorFlow's: as few as the output needs, the odd one after, hence (0, 1) for kernel 3, stride 2, even
    size. "symmetric" is PyTorch's: kernel // 2 on both sides.
    """
    kernel = (kernel - 1) * dilation + 1
    if padding == "symmetric":
        return kernel // 2, kernel // 2
    total = max((output_size(size, stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
