"""What travels with an exported model: classes, preprocessing, input size, where it came from."""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

JSON_FILE = "mnet.json"
LABELS_FILE = "labels.txt"
CALIBRATION_FILE = "score_calibration.txt"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # of files in archives; the earliest: the same model gives the same bytes


_TEXTS = (str, str | None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """Everything that a runtime, or a person, needs to use the file; no weights.

    Attributes:
      model: architecture, such as "v3_large".
      width: its width multiplier.
      class_names: of the data set, in the order in which results have them.
      image_size: (height, width) of the input in pixels.
      input: "uint8" (RGB pixels, normalised inside) or "float" (RGB, normalised before by `mean` and `std`).
      output: which results the task's head gives; of classification "probabilities" or "logits".
      quantize: "none", "float16", "dynamic" or "int8".
      mean: per channel, of pixels in 0..255.
      std: their standard deviation.
      eval_crop: share of the short side of a photo that the model was evaluated on (centre square).
      interpolation: how the crop was resized, "bilinear" or "bicubic".
      source: checkpoint or published weights.
      step: of the checkpoint; 0 for published weights.
      version: of mnet_jax.
      date: as given; None leaves it out, and the same weights give the same bytes.
      task: what the network was trained for. Files do not say "classification", the only one when there were no others.
      task_settings: fields of the config's section `task` that the file has otherwise than the model; files do not say
        that there are none.
      thresholds: the score from which each class is there, of a task in which several can be; None: of another.
    """

    model: str
    width: float
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    input: str
    output: str
    quantize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    eval_crop: float
    interpolation: str
    source: str
    step: int
    version: str
    date: str | None = None
    task: str = "classification"
    task_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    thresholds: tuple[float, ...] | None = None

    @property
    def description(self) -> str:
        """One paragraph for people."""
        preparation = (
            "RGB pixels 0..255, uint8"
            if self.input == "uint8"
            else f"RGB float32, (pixel - {list(self.mean)}) / {list(self.std)}"
        )
        height, width = self.image_size
        part = "the whole photo" if self.eval_crop == 1.0 else f"a photo's centre, {self.eval_crop:g} of its short side"
        return (
            f"MobileNet {self.model} (width {self.width:g}), {len(self.class_names)} classes. "
            f"Input: {height} x {width} {preparation}; {part}, resized {self.interpolation}. "
            f"Output: {self.output}. Quantisation: {self.quantize}. Weights: {self.source}, step {self.step}. "
            f"Made by mnet_jax {self.version}{f' on {self.date}' if self.date else ''}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields by name; without a task where it is classification, without settings where it has none."""
        fields = dataclasses.asdict(self)
        if self.task == "classification":
            del fields["task"]
        if not self.task_settings:
            del fields["task_settings"]
        if self.thresholds is None:
            del fields["thresholds"]
        return fields

    def to_json(self) -> str:
        """Returns JSON of all fields; `from_json` reads it back."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_properties(self) -> dict[str, str]:
        """Returns each field as a text of its own: strings as they are, else JSON; what is None is left out."""
        fields = {name: value for name, value in self.to_dict().items() if value is not None}
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in fields.items()
        }

    def labels(self) -> str:
        """Returns the label file: a line for each class."""
        return "".join(f"{' '.join(name.split())}\n" for name in self.class_names)

    def calibration(self) -> str:
        """Returns a line for each class as the Task Library and MediaPipe read it: scale, slope, offset, lowest score.

        A score that is below the lowest becomes 0; of others scale / (1 + exp(-slope x - offset)), where x is their
        logit, leaves what they are.
        """
        # without a last end of line, which MediaPipe takes for one more class
        return "\n".join(f"1,1,0,{threshold:.9g}" for threshold in self.thresholds or ())


def from_properties(properties: dict[str, str]) -> About:
    """Returns what `About.to_properties` made a text of."""
    about = {}
    for field in dataclasses.fields(About):
        if field.name in properties:
            text = properties[field.name]
            about[field.name] = text if field.type in _TEXTS else json.loads(text)
    return from_json(json.dumps(about))


def from_json(text: str | bytes) -> About:
    """Returns what `About.to_json` wrote."""
    fields: dict[str, Any] = json.loads(text)
    return About(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def check_date(text: str | None) -> str | None:
    """Returns `text`.

    Raises:
      ValueError: unless it is None or a date as 2026-01-31.
    """
    if text is not None:
        try:
            datetime.date.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"date must be as 2026-01-31, got {text!r}") from error
    return text
