"""DualVGR at the sizes of a recording, with its recorded weights and inputs."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.parity.recording import Recording
from msvqa.models.dualvgr import DualVGR
from msvqa.models.layers.network import GraphNetwork
from msvqa.models.model import Sizes
from msvqa.models.reference import from_reference


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


def model_batch(recording: Recording, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return the recorded inputs as a batch of one question per video."""
    questions = len(recording["in/question_len"])
    batch = {
        "appearance": recording.input("appearance", dtype),
        "motion": recording.input("motion", dtype),
        "question": recording.input("questions"),
        "question_length": recording.input("question_len"),
        "video_index": torch.arange(questions),
        "weight": torch.ones(questions, dtype=dtype),
        "normalizer": torch.tensor(float(questions), dtype=dtype),
        "workers": torch.tensor(1.0, dtype=dtype),
    }
    if "in/answers" in recording:
        batch["answer"] = recording.input("answers")
    return batch
