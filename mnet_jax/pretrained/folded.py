"""A TFLite graph -> its convolutions in the order in which they run, and what becomes of pixels before the first.

TFLite files have norms folded into kernels and biases, and no names that could be relied on. What identifies a layer is
where it stands: the backbone and the extras of a detector are one chain; predictors are branches of it that end.
"""

import dataclasses

import numpy as np

from mnet_jax.pretrained.readers.tflite import Model, Operator

_CONVS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_BOXES, _SCORES = 0, 1  # inputs of TFLite_Detection_PostProcess
POST_PROCESS = "TFLite_Detection_PostProcess"
# What may stand between convolutions: it moves numbers, or is an activation that the plan has too.
_BETWEEN = (
    *("ADD", "AVERAGE_POOL_2D", "CONCATENATION", "DEQUANTIZE", "LOGISTIC", "MEAN", "PAD", "QUANTIZE", "RELU6"),
    *("RESHAPE", "RESIZE_BILINEAR", "SOFTMAX", "SQUEEZE", POST_PROCESS),
)
_BEFORE = ("CAST", "DEQUANTIZE", "MUL", "PAD", "QUANTIZE", "SUB")  # between pixels and the first convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folded:
    """One convolution or dense layer with its norm folded in, float32, as our layers have their arrays."""

    kernel: np.ndarray  # [k, k, 1, C] depthwise, [in, out] pointwise, [k, k, in, out] otherwise
    bias: np.ndarray  # [out]
    depthwise: bool
    stride: int
    dilation: int
    activation: str | None  # as fused; None too where the range of a quantised result stands for it
    same: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Branch:
    """A predictor: layers that lead from a map of the chain to the network's results."""

    after: int  # the layer of the chain whose map it takes
    boxes: bool  # whether its numbers are codes of boxes; otherwise logits of classes
    layers: tuple[Folded, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What a file computes."""

    chain: tuple[Folded, ...]
    branches: tuple[Branch, ...]  # none: a classifier, whose last layer ends the chain
    image_size: tuple[int, int]
    padding: str
    mean: tuple[float, ...] | None  # of pixels in 0 .. 255, three or one; None: the file does not say
    std: tuple[float, ...] | None
    scores: str  # what makes scores of logits: "softmax", "sigmoid" or "none"
    resized: bool  # whether its maps are resized, all of them with aligned corners: a segmenter of TensorFlow's DeepLab


def trace(model: Model) -> Network:
    """Returns the network of a file.

    Raises:
      ValueError: if it holds anything that these networks do not.
    """
    convs = [operator for operator in model.operators if operator.kind in _CONVS]
    if len(model.inputs) != 1 or len(model.tensors[model.inputs[0]].shape) != 4 or not convs:
        raise ValueError("it does not take one image")
    before, mean, std = _pixels(model, convs[0])
    for operator in model.operators:
        if operator.kind not in (*_CONVS, *_BETWEEN) and operator not in before and not _is_constant(model, operator):
            raise ValueError(f"it has {operator.kind}, which these networks have not")
    following = [_following(model, convs, conv) for conv in convs]
    ends = [index for index, later in enumerate(following) if not later]
    branches, taken = [], set()
    if len(ends) > 1:
        for end in ends:
            members = [end]
            source = _sources(following, end)[-1]
            if convs[source].kind == "DEPTHWISE_CONV_2D" and following[source] == [end]:
                members, source = [source, end], _sources(following, source)[-1]
            taken.update(members)
            layers = tuple(_folded(model, convs[index]) for index in members)
            branches.append((source, Branch(after=source, boxes=_gives_boxes(model, convs[end]), layers=layers)))
    order = [index for index in range(len(convs)) if index not in taken]
    chain = tuple(_folded(model, convs[index]) for index in order)
    _, height, width, _ = model.tensors[model.inputs[0]].shape
    kinds = {operator.kind for operator in model.operators}
    resizing = [operator for operator in model.operators if operator.kind == "RESIZE_BILINEAR"]
    if not all(operator.align_corners for operator in resizing):
        raise ValueError("it resizes maps without aligning their corners, which these networks do not")
    return Network(
        chain=chain,
        branches=tuple(
            dataclasses.replace(branch, after=order.index(source)) for source, branch in branches if source in order
        ),
        image_size=(height, width),
        padding=_padding(model, chain),
        mean=mean,
        std=std,
        resized=bool(resizing),
        scores="sigmoid" if "LOGISTIC" in kinds else "softmax" if "SOFTMAX" in kinds else "none",
    )


# --- Constants ---


def _constant(model: Model, place: int) -> np.ndarray | None:
    """Returns a constant's real values; also of one that is dequantised as the model starts (float16). None: none."""
    tensor = model.tensors[place]
    if tensor.stored is not None:
        return tensor.values
    for operator in model.operators:
        if place in operator.outputs:
            return _constant(model, operator.inputs[0]) if operator.kind == "DEQUANTIZE" else None
    return None


def _is_constant(model: Model, operator: Operator) -> bool:
    return all(place < 0 or model.tensors[place].stored is not None for place in operator.inputs)


def _folded(model: Model, operator: Operator) -> Folded:
    kernel = _constant(model, operator.inputs[1])
    if kernel is None or kernel.ndim != (2 if operator.kind == "FULLY_CONNECTED" else 4):
        raise ValueError(f"a {operator.kind} has no constant kernel")
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    if operator.kind == "FULLY_CONNECTED":
        kernel = kernel.T
    elif depthwise:
        kernel = kernel.transpose(1, 2, 0, 3)
    else:
        kernel = kernel.transpose(1, 2, 3, 0)
        kernel = kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel
    bias = _constant(model, operator.inputs[2]) if len(operator.inputs) > 2 and operator.inputs[2] >= 0 else None
    return Folded(
        kernel=np.ascontiguousarray(kernel),
        bias=np.zeros(kernel.shape[-1], np.float32) if bias is None else bias.reshape(-1),
        depthwise=depthwise,
        stride=operator.stride,
        dilation=operator.dilation,
        activation=operator.activation,
        same=operator.same,
    )


# --- What leads where ---


def _following(model: Model, convs: list[Operator], conv: Operator) -> list[int]:
    """Returns the numbers of the convolutions that take what this one gives, changed by others or not, in order."""
    places, found = set(conv.outputs), []
    for operator in model.operators:
        if operator is conv or not places & set(operator.inputs):
            continue
        if operator.kind in _CONVS:
            found.append(next(index for index, other in enumerate(convs) if other is operator))
        else:
            places |= set(operator.outputs)
    return found


def _sources(following: list[list[int]], index: int) -> list[int]:
    found = [source for source, later in enumerate(following) if index in later]
    if not found:
        raise ValueError("a layer stands before all others")
    return found


def _gives_boxes(model: Model, conv: Operator) -> bool:
    """Whether a predictor ends as boxes: in the first input of the post-processing, or in rows of four numbers."""
    places = list(conv.outputs)
    for operator in model.operators:
        if not set(places) & set(operator.inputs):
            continue
        if operator.kind == POST_PROCESS:
            return operator.inputs[_BOXES] in places
        places += operator.outputs
    return model.tensors[places[-1]].shape[-1:] == (4,)


def _padding(model: Model, chain: tuple[Folded, ...]) -> str:
    """Returns "same" or "symmetric": how its strided convolutions are padded, by themselves or by a PAD."""
    pads = [_constant(model, operator.inputs[1]) for operator in model.operators if operator.kind == "PAD"]
    if any(pad is not None and pad[1, 0] == pad[1, 1] > 0 for pad in pads):
        return "symmetric"
    if not pads and not all(layer.same for layer in chain if layer.stride > 1):
        raise ValueError("a strided convolution has no padding")
    return "same"


def _pixels(model: Model, first: Operator) -> tuple[list[Operator], tuple[float, ...] | None, tuple[float, ...] | None]:
    """Returns the operators before the first convolution, and mean and deviation of pixels that are the same as they.

    A quantised input says what its pixels mean; a float one may have metadata that do.
    """
    tensor = model.tensors[model.inputs[0]]
    factor, shift = np.ones(3), np.zeros(3)  # what the first convolution gets = factor pixel + shift
    said = model.normalization is not None
    if tensor.scale.size == 1:
        factor, shift = factor * tensor.scale[0], shift - tensor.scale[0] * float(tensor.zero[0])
        said = True
    elif said:
        mean, std = (np.asarray(values, np.float64) for values in model.normalization)
        factor, shift = factor / std, shift - mean / std
    place, before = model.inputs[0], []
    for operator in model.operators:
        if place not in operator.inputs:
            continue
        if operator is first:
            break
        if operator.kind not in _BEFORE:
            raise ValueError(f"it has {operator.kind} before its first convolution, which these networks have not")
        before.append(operator)
        if operator.kind in ("MUL", "SUB"):
            value = _constant(model, operator.inputs[1])
            if value is None or value.size not in (1, 3):
                raise ValueError(f"it has a {operator.kind} of pixels that is not by a constant")
            value = value.reshape(-1).astype(np.float64)
            factor, shift = (factor * value, shift * value) if operator.kind == "MUL" else (factor, shift - value)
        place = operator.outputs[0]
    if tensor.dtype == np.uint8 or before:
        said = True
    if not said:
        return before, None, None
    return before, tuple(map(float, -shift / factor)), tuple(map(float, 1 / factor))
