"""What TPU chips can do, and what a program compiled for one says about itself, operation by operation.

The chips' capacity, bandwidth and peak are as Google publishes them: the system architecture pages of the Cloud TPU
documentation (docs.cloud.google.com, tpu/docs/v4 v5e v5p v6e tpu7x), read in November 2026. The clocks are not there:
they are peak / (multiply-adds a cycle of all matrix units of the device x 2), and the compiler's own estimates for a
large matrix product and a large copy agree with them (docs/tpu.md).

The text of a compiled program gives for each fusion `estimated_cycles`, the compiler's own estimate, in which the time
that its memory traffic takes is included; `metadata={op_name=...}` names the layer that it came from.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

GIB = 2**30

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
OP_NAME = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
OPERAND = re.compile(r"%([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%[\w.-]+))")
# They move nothing: names for what is there already, or the work of the computation that they call.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "iota"}
_UNKNOWN = 2**62  # from here on it is no estimate: some operations have 2**63 - 1 on tpu7x
_ON_CHIP = "S(1)"  # a layout's memory space: 1 is the core's own memory (VMEM), none is HBM


# --- Chips ---


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one JAX device has: a whole chip, but on tpu7x one of the chip's two cores."""

    name: str
    hbm: int  # bytes
    bandwidth: float  # bytes a second
    peak: float  # bfloat16 operations a second
    clock: float  # cycles a second
    per_chip: int = 1  # devices


# By `device_kind`.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 32 * GIB, 1200e9, 275e12, 275e12 / (2 * 8 * 128**2)),
    "TPU v5 lite": Chip("v5e", 16 * GIB, 819e9, 197e12, 197e12 / (2 * 4 * 128**2)),
    "TPU v5": Chip("v5p", 95 * GIB, 2765e9, 459e12, 459e12 / (2 * 8 * 128**2)),
    "TPU v6 lite": Chip("v6e", 32 * GIB, 1640e9, 918e12, 918e12 / (2 * 4 * 256**2)),
    "TPU7x": Chip("tpu7x", 96 * GIB, 3690e9, 1154e12, 1154e12 / (2 * 4 * 256**2), per_chip=2),
}


def chip(device_kind: str) -> Chip:
    """Returns the chip of a device kind such as "TPU v5 lite"; ValueError for one that is not in the table."""
    if device_kind not in CHIPS:
        known = ", ".join(entry.name for entry in CHIPS.values())
        raise ValueError(f"no figures for {device_kind!r}; there are those of {known}")
    return CHIPS[device_kind]


# --- Programs ---


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a compiled program."""

    name: str
    kind: str  # "fusion", "convolution", "copy", "all-reduce", ...
    layer: str  # "block_03/depthwise", or what of the step it belongs to
    part: str  # "forward", "gradient" or "step" (augmentation, optimiser, averages)
    runs: int  # times that it runs in a step
    cycles: int  # estimated, of all runs; 0 where the compiler has no estimate
    hbm_bytes: int  # read from and written to HBM, of all runs

    @property
    def label(self) -> str:
        """Returns the layer and what is done to it: "block_03/depthwise gradient"."""
        return self.layer if self.part == "step" else f"{self.layer} {self.part}"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program's text."""

    name: str
    shape: str
    kind: str
    rest: str  # operands and attributes


def operations(text: str) -> list[Operation]:
    """Returns the operations that a program runs, from `compiled.as_text()`.

    Loops count as often as they run. Where that depends on the data (RandAugment's rounds), they count once; of several
    branches the one with the most cycles counts.
    """
    entry, found = computations(text)
    return list(_walk(found, entry, 1))


def computations(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """Returns (name of the entry, {computation: its instructions}) of a program for any backend, not TPUs alone."""
    entry, current, found = "", [], {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = found.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
            continue
        match = _INSTRUCTION.match(line)
        if match:
            current.append(Instruction(*match.groups()))
    if not entry:
        raise ValueError("this is no text of a compiled program: it has no ENTRY")
    return entry, found


def _walk(computations: dict[str, list[Instruction]], name: str, runs: int) -> Iterator[Operation]:
    """Yields the operations of a computation that runs so often, and of all that it calls."""
    instructions = computations[name]
    shapes = {instruction.name: instruction.shape for instruction in instructions}
    for instruction in instructions:
        rest = instruction.rest
        if instruction.kind == "while":
            rounds = _rounds(computations[_called(rest, "condition")])
            yield from _walk(computations, _called(rest, "body"), runs * rounds)
        elif instruction.kind == "conditional":
            names = [name for match in _BRANCHES.finditer(rest) for name in OPERAND.findall(match[0])]
            branches = [list(_walk(computations, branch, runs)) for branch in names]
            yield from max(branches, key=lambda branch: sum(operation.cycles for operation in branch))
        elif instruction.kind == "call":
            yield from _walk(computations, _called(rest, "to_apply"), runs)
        elif instruction.kind not in _FREE and not instruction.kind.endswith("-done"):
            estimate = _CYCLES.search(rest)
            cycles = int(estimate[1]) if estimate else 0
            operands = OPERAND.findall(rest.split("), ", 1)[0])
            moved = _hbm_bytes(instruction.shape) + sum(_hbm_bytes(shapes.get(operand, "")) for operand in operands)
            layer, part = _origin(rest)
            yield Operation(
                name=instruction.name,
                kind=instruction.kind,
                layer=layer,
                part=part,
                runs=runs,
                cycles=runs * cycles if cycles < _UNKNOWN else 0,
                hbm_bytes=runs * moved,
            )


def _called(rest: str, role: str) -> str:
    return re.search(rf"\b{role}=%([\w.-]+)", rest)[1]


def _rounds(condition: list[Instruction]) -> int:
    """Returns how often a loop runs that counts from 0 to a constant; 1 where it is not such a loop."""
    constants = {instruction.name: instruction.rest for instruction in condition if instruction.kind == "constant"}
    last = condition[-1]
    if last.kind != "compare" or "direction=LT" not in last.rest:
        return 1
    bounds = [constants[name] for name in OPERAND.findall(last.rest.split(")")[0]) if name in constants]
    return int(re.match(r"\d+", bounds[0])[0]) if bounds else 1


def _hbm_bytes(shape: str) -> int:
    """Returns the bytes of the arrays of a shape that lie in HBM, without the padding of their tiles."""
    total = 0
    for kind, dimensions, layout in _ARRAY.findall(shape):
        if _ON_CHIP not in layout:
            bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0]) if re.search(r"\d+", kind) else 0
            total += math.prod(int(size) for size in dimensions.split(",") if size) * bits // 8
    return total


def _origin(rest: str) -> tuple[str, str]:
    """Returns (layer, part) by the name of an operation.

    The name is such as "jit(f)/transpose(jvp(MobileNet))/MobileNet._run/block_01/.../add".
    """
    match = OP_NAME.search(rest)
    if not match:
        return "unnamed", "step"
    names = match[1].split("/")
    place = next((i for i, name in enumerate(names) if "MobileNet" in name), None)
    if place is None:
        inner = [
            name for name in names[:-1] if not re.match(r"jit\(_?\w*\)$|shard_map$|closed_call$|while$|body$", name)
        ]
        return "/".join(inner[:2]) or names[-1], "step"
    part = "gradient" if names[place].startswith("transpose") else "forward"
    # method names ("block_01.conv", "MobileNet._run"), branches and the operation itself are no layers
    layers = [name for name in names[place + 1 : -1] if re.fullmatch(r"(?!cond$|branch_\d)[a-z]\w*", name)]
    return "/".join(layers) or "MobileNet", part
