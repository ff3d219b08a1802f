"""E5: what each step from a plain forward pass to a compiled one in bf16 brings the encoders."""

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import torch

from benchmarks.measure import Count, Fact, ratio
from benchmarks.reference.encoding import channels_first
from benchmarks.rows.compiling import compile_for, hindrance, left_out
from benchmarks.rows.counting import operations
from benchmarks.rows.encoders import (
    clips,
    frames,
    passing,
    product,
    resnet,
    resnext,
)
from benchmarks.rows.setting import Finding, Setting, per_unit
from msvqa.data.processors.frozen_encoder import open_encoder, open_frozen
from msvqa.engine.precision import TYPES
from msvqa.models.encoders.encoder import Encoder
from msvqa.sections import NamedConfig

# Legend: N frames or clips, H x W pixels, D width.

FIRST, LAYOUT, BF16 = "channels first", "channels last", "bf16"
FOLDED, COMPILED = "batch norm folded", "compiled"
PRECISIONS = {FIRST: "fp32", LAYOUT: "fp32", BF16: "bf16", FOLDED: "bf16", COMPILED: "bf16"}
"""Of each rung; each has what those before it have."""
LEAST_COSINE = 0.999


def rungs(setting: Setting) -> list[Finding]:
    """Return E5 for the published encoders of frames and of clips."""
    appearance = _networks("appearance", resnet(setting), setting)
    motion = _networks("motion", resnext(setting), setting)
    return [
        *_climbed("ResNet-101 frames", appearance, frames(setting, 8, 128), setting),
        *_climbed("3D ResNeXt-101 clips", motion, clips(setting, 2, 32), setting),
        *left_out("E5", setting),
    ]


def _networks(part: str, config: NamedConfig, setting: Setting) -> dict[str, Encoder]:
    """Return the encoder of each rung from the lowest one; the last needs a compiler."""
    network, folded = (opened(part, config, seed=0) for opened in (open_encoder, open_frozen))
    found = {FIRST: channels_first(network), LAYOUT: network, BF16: network, FOLDED: folded}
    if not hindrance(setting):
        found[COMPILED] = copy.deepcopy(folded)
        compile_for(setting, found[COMPILED])
    return found


def _climbed(
    name: str, networks: Mapping[str, Encoder], pixels: np.ndarray, setting: Setting
) -> list[Finding]:
    own = torch.from_numpy(pixels).to(setting.device)
    methods = {rung: passing(of, own, PRECISIONS[rung]) for rung, of in networks.items()}
    products = {f"product, {name}": product(kind, setting) for name, kind in TYPES.items()}
    work = dict.fromkeys(methods, operations(methods[LAYOUT]))
    work |= {kind: operations(method) for kind, method in products.items()}
    costs = setting.measure(methods | products)
    speeds = per_unit(costs, work)
    found: list[Finding] = []
    for lower, rung in pairwise(methods):
        found.append(ratio(f"E5 {name}, {lower} / {rung}", costs, lower, rung))
    for rung in methods:
        yardstick = f"product, {PRECISIONS[rung]}"
        rate = len(pixels) / min(costs[rung])
        found += [
            ratio(
                f"E5 operations per second, {name}, {rung} / {yardstick}", speeds, yardstick, rung
            ),
            Fact(f"E5 {name} per second, {rung}", f"{rate:.4g}"),
        ]
    return [*found, *_likeness(name, methods)]


def _likeness(name: str, methods: Mapping[str, Callable[[], torch.Tensor]]) -> list[Finding]:
    """Return the smallest cosine of each rung's features to those of the lowest."""
    plain = methods[FIRST]().double()
    found: list[Finding] = []
    for rung, method in methods.items():
        if rung != FIRST:
            cosine = torch.nn.functional.cosine_similarity(plain, method().double(), dim=1)
            label = f"E5 smallest cosine to {FIRST}, {name}, {rung}"
            found.append(Count(label, round(float(cosine.min()), 6), f">= {LEAST_COSINE}"))
    return found
