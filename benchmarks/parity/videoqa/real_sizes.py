"""Real sizes, with weights from a formula."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.recording import EXACT, Comparison, Recording
from benchmarks.parity.videoqa.network import keep_last_views
from msvqa.models.dualvgr import DualVGR
from msvqa.models.encoders.resnext3d import LAYERS, ResNeXt3D
from msvqa.models.model import Sizes
from msvqa.models.reference import to_reference

CLASSIFIER = {"fc.weight": (400, 2048), "fc.bias": (400,)}
"""Weights of the reference that our encoder does without."""
LAYER_NAMES = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def formula_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return the weights that the recordings of real sizes were made with."""
    weights = {}
    for position, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        z = np.random.RandomState(seed + position).standard_normal(shape)
        weights[name] = torch.from_numpy(np.asarray(_scaled(name, z), dtype=np.float32))
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros(shape, dtype=torch.long)
    return weights


def _scaled(name: str, z: Any) -> Any:
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(z)
    if name.endswith("running_mean"):
        return 0.1 * z
    if np.ndim(z) >= 2:
        return z * np.sqrt(1 / np.prod(z.shape[1:]))
    if name.endswith("bn3.weight"):
        return 0.2 * (1 + 0.1 * z)
    if name.endswith(".weight"):
        return 1 + 0.1 * z
    return 0.1 * z


def full_dims(recording: Recording) -> Iterator[Comparison]:
    """DualVGR at the sizes of MSVD-QA."""
    for case in recording.cases("logits"):
        yield from _full_dims_of(recording, case)


def _full_dims_of(recording: Recording, case: str) -> Iterator[Comparison]:
    seed = int(recording[f"{case}/seed"])
    videos, clips, hidden = recording[f"{case}/common_app_last"].shape
    # What no recorded shape tells is as the program has it for MSVD-QA.
    frames, width = 16, 2048
    sizes = Sizes(
        vocabulary=4809, answers=recording[f"{case}/logits"].shape[1], num_clips=clips,
        frames_per_clip=frames, size_px=224, appearance_width=width, motion_width=width,
        word_size=300,
    )  # fmt: skip
    config = DualVGR.Config(units=int(case.removeprefix("units")), hidden_size=hidden)
    model = DualVGR(config, sizes).eval()
    reference = to_reference(model.network.state_dict(), model.config.heads)
    shapes = {name: tuple(value.shape) for name, value in reference.items()}
    model.load_reference(formula_weights(shapes, 1000 * seed), case)
    generator = np.random.RandomState(seed)
    features = [
        torch.from_numpy(np.abs(generator.standard_normal(shape)).astype(np.float32)).double()
        for shape in ((videos, clips, frames, width), (videos, clips, width))
    ]
    batch = {
        "appearance": features[0],
        "motion": features[1],
        "question": torch.from_numpy(recording[f"{case}/questions"]),
        "question_length": torch.from_numpy(recording[f"{case}/question_len"]),
        "video_index": torch.arange(videos),
    }
    fused = keep_last_views(model.network)
    found = model.double().answer(batch)
    yield recording.compare(f"{case}/logits", found.logits, 1e-9)
    yield recording.compare(f"{case}/common_app_last", found.common_appearance[-1], 1e-6)
    last = fused["app_embed_last"]
    moments = torch.stack([last.mean(), last.std()])
    yield recording.compare(f"{case}/app_embed_last_mean_std", moments, 1e-6)


def resnext3d(recording: Recording) -> Iterator[Comparison]:
    """3D ResNeXt: names of the weights, and every layer's output at every recorded size."""
    for case in recording.cases("param_names"):
        names = recording[f"{case}/param_names"].tolist()
        shapes = recording[f"{case}/param_shapes"].tolist()
        depth: Any = int(case.removeprefix("resnext"))
        with torch.device("meta"):
            published = ResNeXt3D(ResNeXt3D.Config(depth=depth))
        own = {n: str(list(v.shape)) for n, v in published.state_dict().items()}
        own |= {name: str(list(shape)) for name, shape in CLASSIFIER.items()}
        different = set(own.items()) ^ set(zip(names, shapes, strict=True))
        yield Comparison(recording.file, f"{case}/param_names, shapes", len(different), EXACT)
    for case in recording.cases("seed"):
        yield from _resnext3d_case(recording, case)


def _resnext3d_case(recording: Recording, case: str) -> Iterator[Comparison]:
    layers = tuple(recording[f"{case}/layers"].tolist())
    depth: Any = next((depth for depth, counts in LAYERS.items() if counts == layers), None)
    if depth is None:
        yield Comparison(recording.file, f"{case}: no depth has layers {layers}", math.inf, EXACT)
        return
    seed = int(recording[f"{case}/seed"])
    network = ResNeXt3D(ResNeXt3D.Config(depth=depth, scale="none")).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    weights = formula_weights(shapes | CLASSIFIER, seed)
    classifier = weights.pop("fc.weight"), weights.pop("fc.bias")
    network.load_state_dict(weights)
    generator = np.random.RandomState(seed + 1_000_000)
    shape = recording[f"{case}/input_shape"]
    pixels = torch.from_numpy(np.float32(generator.uniform(0, 255, shape)))
    outputs: dict[str, Tensor] = {}
    for name in LAYER_NAMES:
        _keep_output(network.get_submodule(name), name, outputs)
    with torch.no_grad():
        volume = network.feature_map(pixels)  # the recorded inputs are not whole numbers
        # The reference's pool has a fixed size, of which ours, which is global, is a mean.
        window = [1, *(4, 4)] if case.endswith("_bug") else volume.shape[2:]
        outputs["avgpool"] = nn.functional.avg_pool3d(volume, window, 1)
        found = outputs["avgpool"].flatten(1)
        out_dim = np.array(found.shape[1])
        if case.endswith("_fc"):
            found = nn.functional.linear(found, *classifier)
            out_dim = np.array(found.shape[1])
    expected = recording[f"{case}/out"]
    yield recording.compare(f"{case}/out_dim", out_dim, EXACT)
    relative = 1e-3 * float(np.abs(expected).max())
    yield recording.compare(f"{case}/out", found[:, : expected.shape[1]], relative)
    recording.ignore(f"{case}/sample_size", "only the reference's pool of a fixed size needs it")
    for name, output in outputs.items():
        yield recording.compare(f"{case}/shape_{name}", np.array(output.shape), EXACT)
        for moment in ("mean", "std"):
            # In place, the reference's activation changes the batch norm's output too.
            quantity = f"{case}/{moment}_{name}"
            value = getattr(output.double(), moment)()
            largest = max(abs(float(recording[quantity])), float(output.double().std()))
            yield recording.compare(quantity, value, 1e-3 * largest)


def _keep_output(module: nn.Module, name: str, outputs: dict[str, Tensor]) -> None:
    module.register_forward_hook(lambda _, inputs, output: outputs.update({name: output}))
