"""E1 to E4: the published encoders against a plain forward pass and against a matrix product."""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure import Count, Fact, has_amx, has_fast_bf16, ratio
from benchmarks.reference import encoding
from benchmarks.rows.counting import operations
from benchmarks.rows.setting import Finding, Setting, per_unit
from msvqa.data.processors.frozen_encoder import FrozenEncoder, open_encoder, open_frozen
from msvqa.engine.precision import autocast
from msvqa.models.encoders.encoder import Encoder
from msvqa.models.encoders.resnet import ResNet
from msvqa.models.encoders.resnext3d import ResNeXt3D

# Legend: N frames or clips, H x W pixels, D width.

FRAME_PX, CLIP_PX, CLIP_FRAMES = 224, 112, 16
TINY_PX, TINY_FRAMES = 32, 4
LEAST_COSINE = 0.9999
PLAIN_TARGETS = {(True, True): ">= 3.0", (True, False): ">= 2.3", (False, False): ">= 1.6"}
"""By what the processor multiplies itself: bf16, and whole tiles of it."""
TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def resnet(setting: Setting) -> ResNet.Config:
    """Return the published encoder of frames, or the smallest one."""
    return ResNet.Config(**setting.size({}, {"depth": 10, "base_width": 8}))


def resnext(setting: Setting) -> ResNeXt3D.Config:
    """Return the published encoder of clips, or the smallest one."""
    return ResNeXt3D.Config(**setting.size({}, {"depth": 14, "base_width": 8, "groups": 4}))


def frames(setting: Setting, on_cpu: int, on_gpu: int) -> np.ndarray:
    """Return frames (N, H, W, 3) uint8; a GPU needs more of them at once."""
    size = setting.size(FRAME_PX, TINY_PX)
    return _pixels((setting.size(on_gpu if setting.on_gpu else on_cpu, 2), size, size))


def clips(setting: Setting, on_cpu: int, on_gpu: int) -> np.ndarray:
    """Return clips (N, F, H, W, 3) uint8."""
    size = setting.size(CLIP_PX, TINY_PX)
    count = setting.size(on_gpu if setting.on_gpu else on_cpu, 2)
    return _pixels((count, setting.size(CLIP_FRAMES, TINY_FRAMES), size, size))


def _pixels(shape: tuple[int, ...]) -> np.ndarray:
    """Return pictures whose neighbours are alike, as those of videos are: (*shape, 3)."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (*shape[:-2], shape[-2] // 8, shape[-1] // 8, 3))
    fine = draw.integers(-20, 21, (*shape, 3))
    whole = coarse.repeat(8, axis=-3).repeat(8, axis=-2) + fine
    return np.asarray(np.clip(whole, 0, 255).astype(np.uint8))


def against_plain(setting: Setting) -> list[Finding]:
    """Return E1: what features cost by a plain forward pass over what they cost as we make them."""
    pixels = frames(setting, 8, 64)
    config = resnet(setting)
    # As `precision: auto` chooses, but by what the machine is known for: no trial decides a row.
    with_bf16 = setting.on_gpu or has_fast_bf16()
    ours = FrozenEncoder("appearance", config, 0, "bf16" if with_bf16 else "float32")
    network = open_encoder("appearance", config, seed=0)
    plain = encoding.channels_first(network)
    costs = setting.measure(
        {
            "plain": lambda: encoding.encode(plain, pixels, setting.device),
            "ours": lambda: ours.encode(pixels, len(pixels), "float32"),
        }
    )
    target = ">= 1.6" if setting.on_gpu else PLAIN_TARGETS[has_fast_bf16(), has_amx()]
    name = f"E1 plain forward pass / ours, {len(pixels)} frames"
    milliseconds = 1e3 * min(costs["ours"]) / len(pixels)
    return [
        ratio(name, costs, "plain", "ours", target),
        Fact("E1 ms per frame, ours", f"{milliseconds:.1f}"),
    ]


def frames_against_products(setting: Setting) -> list[Finding]:
    """Return E2: the speed of ResNet-101 over that of a matrix product, by type."""
    network = open_frozen("appearance", resnet(setting), seed=0)
    target = ">= 0.35" if setting.on_gpu else ">= 0.75"
    return _against_products("E2 ResNet-101", network, frames(setting, 8, 128), setting, target)


def clips_against_products(setting: Setting) -> list[Finding]:
    """Return E3: the speed of 3D ResNeXt-101 over that of a matrix product, by type."""
    network = open_frozen("motion", resnext(setting), seed=0)
    target = "" if setting.on_gpu else ">= 0.6"
    return _against_products("E3 3D ResNeXt-101", network, clips(setting, 2, 32), setting, target)


def _against_products(
    name: str, network: Encoder, pixels: np.ndarray, setting: Setting, target: str
) -> list[Finding]:
    found: list[Finding] = []
    own = torch.from_numpy(pixels).to(setting.device)
    for kind, dtype in _types(setting).items():
        methods = {
            "encoder": passing(network, own, "bf16" if kind == "bf16" else "fp32"),
            "product": product(dtype, setting),
        }
        costs = setting.measure(methods)
        # Cost per operation of the product over that of the encoder: a quotient of speeds.
        work = {name: operations(method) for name, method in methods.items()}
        costs = per_unit(costs, work)
        speed = 1e-9 / min(costs["encoder"])
        found += [
            ratio(f"{name} / product, {kind}", costs, "product", "encoder", target),
            Fact(f"{name}, 10^9 operations per second, {kind}", f"{speed:.0f}"),
        ]
    return found


def _types(setting: Setting) -> dict[str, torch.dtype]:
    """Return the types that the device multiplies itself."""
    if setting.on_gpu or has_fast_bf16() or setting.is_tiny:
        return TYPES
    return {"float32": torch.float32}


def passing(network: Encoder, pixels: torch.Tensor, precision: str) -> Callable[[], torch.Tensor]:
    """Return what gives features (N, D) in `fp32` or `bf16`, and keeps nothing for gradients."""

    def run() -> torch.Tensor:
        with torch.inference_mode(), autocast(pixels.device, precision):  # type: ignore[arg-type]
            return network(pixels)

    return run


def product(dtype: torch.dtype, setting: Setting) -> Callable[[], object]:
    """Return a matrix product that the device does well, the yardstick of speeds.

    In float32 a GPU takes TF32 where its convolutions do: else these would be faster than it.
    """
    size = setting.size(8192 if setting.on_gpu else 2048, 64)
    draw = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(size, size, generator=draw).to(device=setting.device, dtype=dtype)
        for _ in range(2)
    )
    with_tf32 = dtype is torch.float32 and setting.on_gpu and torch.backends.cudnn.allow_tf32
    return lambda: _in_tf32(a, b) if with_tf32 else a @ b


def _in_tf32(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        return a @ b
    finally:
        torch.set_float32_matmul_precision(before)


def likeness_of_bf16(setting: Setting) -> list[Finding]:
    """Return E4: the smallest cosine of features in bf16 to those in float32."""
    found: list[Finding] = []
    for name, network, pixels in (
        ("ResNet-101", open_frozen("appearance", resnet(setting), 0), frames(setting, 4, 64)),
        ("3D ResNeXt-101", open_frozen("motion", resnext(setting), 0), clips(setting, 1, 16)),
    ):
        own = torch.from_numpy(pixels).to(setting.device)
        precise, brief = (_features(network, own, precision) for precision in ("fp32", "bf16"))
        cosine = torch.nn.functional.cosine_similarity(precise, brief, dim=1).min()
        label = f"E4 smallest cosine, bf16 to float32, {name}"
        found.append(Count(label, round(float(cosine), 6), f">= {LEAST_COSINE}"))
    return found


def _features(network: Encoder, pixels: torch.Tensor, precision: str) -> torch.Tensor:
    """Return features (N, D) in float64."""
    with torch.inference_mode(), autocast(pixels.device, precision):  # type: ignore[arg-type]
        return network(pixels).double()
