"""Recorded files of the reference, and the model at their sizes."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msvqa.models.dualvgr import DualVGR
from msvqa.models.layers.network import GraphNetwork
from msvqa.models.model import Sizes
from msvqa.models.reference import from_reference

EXACT, DOUBLE, STORED_AS_FLOAT = 0.0, 1e-10, 1e-6
SHARED = Path(os.environ.get("MSVQA_SHARED", Path(__file__).parents[3] / "shared"))


@dataclass(frozen=True)
class Comparison:
    """The largest difference of one quantity of one file."""

    file: str
    quantity: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within its tolerance; a difference that is no number is not."""
        return self.difference <= self.tolerance


class Recording:
    """One recorded file: settings, inputs, weights and outputs."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.stem
        self.arrays = dict(np.load(path, allow_pickle=False))
        self.meta: dict[str, Any] = json.loads(str(self.arrays.get("meta", "{}")))

    def input(self, name: str) -> Tensor:
        """Return an input; floating numbers in double precision."""
        value = torch.from_numpy(self.arrays[f"in/{name}"])
        return value.double() if value.is_floating_point() else value

    def state(self, folder: str = "state") -> dict[str, Tensor]:
        """Return weights under the reference's names, in double precision."""
        start = f"{folder}/"
        values = {k.removeprefix(start): v for k, v in self.arrays.items() if k.startswith(start)}
        return {k: torch.from_numpy(np.asarray(v)).to(_double(v)) for k, v in values.items()}

    def compare(
        self, quantity: str, found: Tensor | np.ndarray, tolerance: float = DOUBLE
    ) -> Comparison:
        """Compare with the array `quantity`."""
        return compare(self.file, quantity, found, self.arrays[quantity], tolerance)


def compare(
    file: str, quantity: str, found: Tensor | np.ndarray, expected: np.ndarray, tolerance: float
) -> Comparison:
    """Return the largest absolute difference; infinite where shapes differ."""
    array = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    if array.shape != expected.shape:
        return Comparison(file, quantity, float("inf"), tolerance)
    difference = np.abs(array.astype(np.float64) - expected.astype(np.float64))
    return Comparison(file, quantity, float(difference.max(initial=0)), tolerance)


def build_model(recording: Recording, **fields: Any) -> DualVGR:
    """Return DualVGR in double precision at the sizes of a recording, without dropout."""
    meta = recording.meta
    layers = meta.get("graph_layers", 1)
    config = DualVGR.Config(
        hidden_size=meta["module_dim"],
        units=meta.get("unit_layers", 1),
        graph_layers=layers,
        heads=meta["heads"],
        padded_length=meta["max_len"],
        reference_graph_layers=layers > 1,
        dropout=0,
        state_dropout=0,
        **fields,
    )
    sizes = Sizes(
        vocabulary=meta["vocab"],
        answers=meta["answers"],
        num_clips=meta["num_nodes"],
        frames_per_clip=meta["num_frames"],
        size_px=224,
        appearance_width=meta["vision_dim"],
        motion_width=meta["vision_dim"],
        word_size=meta["word_dim"],
    )
    return DualVGR(config, sizes).double().eval()


def load_part(recording: Recording, part: str, theirs: str) -> Any:
    """Return a part of the network with its recorded weights; `theirs` begins their names."""
    network: GraphNetwork = build_model(recording).network
    module: nn.Module = network.get_submodule(part)
    own = {f"{part}.{name}": value for name, value in module.state_dict().items()}
    given = {f"{theirs}.{name}": value for name, value in recording.state().items()}
    renamed = from_reference(given, own, recording.meta["heads"], recording.file)
    module.load_state_dict({k.removeprefix(f"{part}."): v for k, v in renamed.items()})
    return module


def model_batch(recording: Recording) -> dict[str, Tensor]:
    """Return the recorded inputs as a batch of one question per video."""
    questions = len(recording.arrays["in/question_len"])
    batch = {
        "appearance": recording.input("appearance"),
        "motion": recording.input("motion"),
        "question": recording.input("questions"),
        "question_length": recording.input("question_len"),
        "video_index": torch.arange(questions),
        "weight": torch.ones(questions),
        "normalizer": torch.tensor(float(questions)),
        "workers": torch.tensor(1.0),
    }
    if "in/answers" in recording.arrays:
        batch["answer"] = recording.input("answers")
    return batch


def in_precision(batch: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch with its floating numbers in another precision."""
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()}


def _double(value: np.ndarray) -> torch.dtype:
    return torch.float64 if np.issubdtype(np.asarray(value).dtype, np.floating) else torch.int64
