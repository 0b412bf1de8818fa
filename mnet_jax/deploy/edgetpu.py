"""Whether the Edge TPU's compiler would map a TFLite model onto the chip, by its documented list of operations.

The compiler itself is not run here: this is its documentation ("TensorFlow models on the Edge TPU", table 1, and the
requirements above it) as data. Compile with `edgetpu_compiler FILE`.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnet_jax.deploy.tflite import operations

# fmt: off
OPERATIONS = frozenset((
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED",
    "L2_NORMALIZATION", "LOGISTIC", "LSTM", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL", "PACK", "PAD",
    "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE", "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH", "SPLIT", "SQUARED_DIFFERENCE",
    "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE", "TRANSPOSE_CONV",
))
# fmt: on
_DTYPES = (schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT32)
_SOFTMAX_LIMIT = 16_000  # elements of its one-dimensional input


def problems(model: bytes) -> list[str]:
    """Returns what would stay on the CPU, and why; [] if the whole model fits the list."""
    found = [f"{name} is not on its list" for name in sorted(set(operations(model)) - OPERATIONS)]
    tensors = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0)).subgraphs[0].tensors
    floats = [tensor.name for tensor in tensors if tensor.type not in _DTYPES]
    if floats:
        names = ", ".join(name.decode() for name in floats[:3])
        found.append(f"{len(floats)} tensors are not 8-bit ({names}, ...)")
    if any(-1 in np.atleast_1d(tensor.shapeSignature) for tensor in tensors if tensor.shapeSignature is not None):
        found.append("sizes are not all fixed")
    if "SOFTMAX" in operations(model) and int(np.prod(tensors[-1].shape)) > _SOFTMAX_LIMIT:
        found.append(f"SOFTMAX of more than {_SOFTMAX_LIMIT:,} classes")
    return found
