"""Files of weights as other libraries write them, from the rule of `random_weights.py`, without those libraries."""

import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile

import h5py
import numpy as np
import random_weights
import safetensors.numpy

from mnet_jax.models.resolve import resolve
from mnet_jax.models.tables import SPECS
from mnet_jax.pretrained.layouts import LAYOUTS, Layout


def library_arrays(layout: Layout, model: str, width: float, num_classes: int = 10) -> dict[str, np.ndarray]:
    """What a file of the library holds for this network, under its names and in its shapes."""
    plan = resolve(SPECS[model], width=width, num_classes=num_classes, width_rule=layout.width_rule)
    arrays = {}
    for variable, name in layout.names(plan):
        shape = variable.shape
        dense = variable.path[0] == "classifier" or (variable.path[0] == "head" and layout.name == "torchvision")
        dense = dense and not (layout.name == "keras" and model[:2] in ("v1", "v3"))  # convolutions in Keras
        if len(shape) == 2 and not dense:
            shape = (1, 1, *shape)
        if variable.path[-1].endswith("kernel"):
            axes = layout.kernel_axes(variable, len(shape))
            shape = tuple(shape[axis] for axis in np.argsort(axes))
        arrays[name] = random_weights.draw(name, shape)
    return arrays


def save_safetensors(path, arrays, **config):
    """timm's: with a config.json beside it if `config` gives its architecture."""
    safetensors.numpy.save_file(arrays, path)
    if config:
        known = {
            "input_size": [3, 64, 64],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "crop_pct": 0.875,
            "interpolation": "bicubic",
        }
        path.with_name("config.json").write_text(json.dumps({"pretrained_cfg": known} | config))
    return path


def save_keras(path, arrays, *, named=True):
    """Keras 2's .h5, or Keras 3's .weights.h5 without layer names (`named` False)."""
    with h5py.File(path, "w") as file:
        layers = collections.defaultdict(dict)
        for name, array in arrays.items():
            module, leaf = name.split("/")
            layers[module][leaf] = array
        if named:
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [layer.encode() for layer in layers]
            for layer, leaves in layers.items():
                inner = group.create_group(layer)
                inner.attrs["weight_names"] = [f"{layer}/{leaf}:0".encode() for leaf in leaves]
                for leaf, array in leaves.items():
                    inner[f"{layer}/{leaf}:0"] = array
        else:
            order = ("kernel", "gamma", "beta", "bias", "moving_mean", "moving_variance")
            for layer, leaves in layers.items():
                for number, leaf in enumerate(sorted(leaves, key=order.index)):
                    file[f"layers/{layer}/vars/{number}"] = leaves[leaf]
    return path


# --- PyTorch's pickles, written by stand-ins for its classes ---


def _stored(array):
    return array if any(array.strides) else array[(slice(0, 1),) * array.ndim]


class _Rebuild:
    def __init__(self, key, array):
        self.key, self.array = key, array

    def __reduce__(self):
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        return _named("torch._utils", "_rebuild_tensor_v2"), (
            _Storage(self.key, _stored(self.array)),
            0,
            self.array.shape,
            strides,
            False,
            collections.OrderedDict(),
        )


class _Storage:
    def __init__(self, key, array):
        self.key, self.array = key, array


def _named(module, name):
    """A function that pickles as module.name."""
    for name_ in (module.partition(".")[0], module):
        if name_ not in sys.modules:
            sys.modules[name_] = types.ModuleType(name_)
            sys.modules[name_].stand_in, sys.modules[name_].__path__ = True, []
    function = getattr(sys.modules[module], name, None)
    if function is None:
        function = types.FunctionType((lambda *args: None).__code__, {})
        function.__module__, function.__qualname__, function.__name__ = module, name, name
        setattr(sys.modules[module], name, function)
    return function


class _Pickler(pickle.Pickler):
    def __init__(self, file, *, stream):
        super().__init__(file, 2)
        self.stream = stream

    def persistent_id(self, thing):
        if isinstance(thing, _Storage):
            tail = (None,) if self.stream else ()
            return ("storage", _named("torch", "FloatStorage"), thing.key, "cpu", thing.array.size, *tail)
        return None


def _pickled(thing, *, stream=False):
    buffer = io.BytesIO()
    _Pickler(buffer, stream=stream).dump(thing)
    return buffer.getvalue()


def save_torch(path, arrays, *, stream=False, extra=None, wrap=None):
    """A state dict, as a ZIP archive or (stream) as PyTorch wrote it before 1.6.

    `extra` goes in beside the tensors; `wrap` makes of the state dict what is saved. An array with strides of 0 has one
    value in its storage.
    """
    try:
        state = collections.OrderedDict(
            (name, _Rebuild(str(i), array)) for i, (name, array) in enumerate(arrays.items())
        )
        state.update(extra or {})
        body = _pickled(wrap(state) if wrap else state, stream=stream)
    finally:
        for module in [name for name, module in sys.modules.items() if getattr(module, "stand_in", False)]:
            del sys.modules[module]
    if stream:
        with open(path, "wb") as file:
            for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
                file.write(pickle.dumps(part, 2))
            file.write(body)
            file.write(pickle.dumps([str(i) for i in range(len(arrays))], 2))
            for array in arrays.values():
                file.write(struct.pack("<q", array.size) + array.tobytes())
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", body)
        for number, array in enumerate(arrays.values()):
            archive.writestr(f"model/data/{number}", _stored(array).tobytes())
    return path


def layout_of(library: str) -> Layout:
    return LAYOUTS[library]
