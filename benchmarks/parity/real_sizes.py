"""Real sizes, with weights from a formula."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.network import keep_last_views
from benchmarks.parity.recording import EXACT, Comparison, Recording
from msvqa.models.dualvgr import DualVGR
from msvqa.models.encoders.resnext3d import LAYERS, ResNeXt3D
from msvqa.models.model import Sizes
from msvqa.models.reference import to_reference


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
    for count in (1, 2):
        yield from _full_dims_of(recording, count)


def _full_dims_of(recording: Recording, count: int) -> Iterator[Comparison]:
    case = f"units{count}"
    seed = int(recording.arrays[f"{case}/seed"])
    sizes = Sizes(
        vocabulary=4809, answers=1854, num_clips=8, frames_per_clip=16, size_px=224,
        appearance_width=2048, motion_width=2048, word_size=300,
    )  # fmt: skip
    model = DualVGR(DualVGR.Config(units=count), sizes).eval()
    reference = to_reference(model.network.state_dict(), model.config.heads)
    shapes = {name: tuple(value.shape) for name, value in reference.items()}
    model.load_reference(formula_weights(shapes, 1000 * seed), case)
    generator = np.random.RandomState(seed)
    features = [
        torch.from_numpy(np.abs(generator.standard_normal(shape)).astype(np.float32)).double()
        for shape in ((3, 8, 16, 2048), (3, 8, 2048))
    ]
    batch = {
        "appearance": features[0],
        "motion": features[1],
        "question": torch.from_numpy(recording.arrays[f"{case}/questions"]),
        "question_length": torch.from_numpy(recording.arrays[f"{case}/question_len"]),
        "video_index": torch.arange(3),
    }
    fused = keep_last_views(model.network)
    found = model.double().answer(batch)
    yield recording.compare(f"{case}/logits", found.logits, 1e-9)
    yield recording.compare(f"{case}/common_app_last", found.common_appearance[-1], 1e-6)
    last = fused["app_embed_last"]
    moments = torch.stack([last.mean(), last.std()])
    yield recording.compare(f"{case}/app_embed_last_mean_std", moments, 1e-6)


def resnext3d(recording: Recording) -> Iterator[Comparison]:
    """3D ResNeXt: names of the weights, and features of every recorded size."""
    arrays = recording.arrays
    with torch.device("meta"):
        published = ResNeXt3D(ResNeXt3D.Config(depth=101))
    shapes = {n: str(list(v.shape)) for n, v in published.state_dict().items()}
    shapes |= {"fc.weight": "[400, 2048]", "fc.bias": "[400]"}
    names = arrays["resnext101/param_names"].tolist()
    expected = dict(zip(names, arrays["resnext101/param_shapes"].tolist(), strict=True))
    different = set(shapes.items()) ^ set(expected.items())
    yield Comparison(recording.file, "resnext101/param_names, shapes", len(different), EXACT)
    for case in sorted({name.split("/")[0] for name in arrays if name.endswith("/seed")}):
        yield _resnext3d_case(recording, case)


def _resnext3d_case(recording: Recording, case: str) -> Comparison:
    layers = tuple(recording.arrays[f"{case}/layers"].tolist())
    depth: Any = next(depth for depth, counts in LAYERS.items() if counts == layers)
    seed = int(recording.arrays[f"{case}/seed"])
    network = ResNeXt3D(ResNeXt3D.Config(depth=depth, scale="none")).eval()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    shapes |= {"fc.weight": (400, 2048), "fc.bias": (400,)}
    weights = formula_weights(shapes, seed)
    classifier = weights.pop("fc.weight"), weights.pop("fc.bias")
    network.load_state_dict(weights)
    shape = recording.arrays[f"{case}/input_shape"]
    generator = np.random.RandomState(seed + 1_000_000)
    pixels = torch.from_numpy(np.float32(generator.uniform(0, 255, shape)))
    with torch.no_grad():
        volume = network.feature_map(pixels)  # the recorded inputs are not whole numbers
        found = volume.flatten(2).mean(dim=2)
        if case.endswith("_fc"):
            found = nn.functional.linear(found, *classifier)
        if case.endswith("_bug"):
            # The reference's pool of 4 x 4 leaves 4 x 4 positions here; ours is global.
            found = nn.functional.avg_pool3d(volume, (1, 4, 4), 1).flatten(1)[:, :2048]
    expected = recording.arrays[f"{case}/out"]
    return recording.compare(f"{case}/out", found, 1e-3 * float(np.abs(expected).max()))
