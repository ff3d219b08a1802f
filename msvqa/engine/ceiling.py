"""What `msvqa doctor --speed` has measured, kept in the folder of this machine for others."""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from msvqa.data.processors.clips import Clips
from msvqa.data.processors.features import Features
from msvqa.data.processors.processor import processor_of
from msvqa.engine.precision import TYPES, name_of
from msvqa.engine.speed import EXTRACTION_PX, Speed
from msvqa.files import read_json, write_json
from msvqa.machine import alone, machine_folder, processor_name
from msvqa.recipe import ClipsConfig, Recipe
from msvqa.storage import is_remote

logger = logging.getLogger(__name__)

KEPT = "speed.json"
FORMAT = 1
PUBLISHED = {"appearance": ("resnet", 101), "motion": ("resnext3d", 101)}
"""Encoders whose work `Speed` knows: names and depths."""
LIBRARIES = ("torch", "av")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is timed for a recipe: another one may decode other videos, or to other sizes."""

    clips: ClipsConfig
    sizes_px: tuple[int, ...]
    videos: str
    """Folder of the videos; empty for a drawn one"""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that tells one kind of work from others."""
        fields = ("num_clips", "frames_per_clip", "decoder")
        clips = {name: getattr(self.clips, name) for name in fields}
        return {**clips, "sizes_px": list(self.sizes_px), "videos": self.videos}


def work_of(recipe: Recipe | None, folder: Path | None = None) -> Work:
    """Return what is timed for a recipe, or for the published clips where there is none.

    Args:
        recipe: its own videos are decoded, where they lie in a folder of this machine.
        folder: has the videos instead.
    """
    clips: ClipsConfig = ClipsConfig()
    sizes: tuple[int, ...] = EXTRACTION_PX
    if recipe is not None:
        processor, root = processor_of(recipe), recipe.data.root
        if folder is None and not is_remote(root) and Path(root).is_dir():
            folder = Path(root)
        clips = recipe.clips
        if isinstance(processor, Clips):
            clips, sizes = processor.config, (processor.config.size_px,)
        elif isinstance(processor, Features):
            config = processor.config
            clips = config.clips
            sizes = tuple(sorted({config.appearance_px, config.motion_px}, reverse=True))
    videos = "" if folder is None else str(folder.resolve())
    return Work(clips=clips, sizes_px=sizes, videos=videos)


def keep(work: Work, speed: Speed) -> None:
    """Keep what was measured, in the place of what was measured before of the same work."""
    entry = {
        **_key(work),
        "measured_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "speed": asdict(speed),
    }
    try:
        with alone(machine_folder()):
            others = [e for e in _entries() if any(e[name] != entry[name] for name in _key(work))]
            write_json(machine_folder() / KEPT, {"format": FORMAT, "measured": [*others, entry]})
    except OSError as error:
        logger.warning("what was measured is not kept for other commands: %s", error)


def best_product_tflops(precision: str) -> float | None:
    """Return 10^12 operations a second of the best matrix product of all devices, if known.

    Args:
        precision: of a stage, `fp32` or `bf16`.
    """
    here = this_machine()
    entries = (_speed(entry) for entry in _entries() if entry["machine"] == here)
    found = [speed for speed in entries if speed is not None]
    if not found:
        return None
    return found[-1].devices * found[-1].gemm_flops[name_of(TYPES[precision])] / 1e12


def can_measure(recipe: Recipe) -> bool:
    """Whether the doctor can measure all of an extraction: no other processors and encoders."""
    processor = processor_of(recipe)
    if not isinstance(processor, (Clips, Features)) or not processor.reads_files:
        return False
    encoders = {
        part: (config.name, getattr(config, "depth", None))
        for part, (config, _) in processor.encoders().items()
    }
    return not encoders or encoders == PUBLISHED


def best_extraction_per_s(recipe: Recipe) -> float | None:
    """Return the media per second that this machine could extract, if that was measured."""
    speed = _measured_of(recipe)
    encodes = bool(processor_of(recipe).encoders())
    return speed.extracted_per_s(encodes=encodes) if speed else None


def best_workers(recipe: Recipe) -> int | None:
    """Return how many workers keep the devices of this machine busy, if that was measured.

    One for each device encodes while the others decode.
    """
    speed = _measured_of(recipe)
    return speed.decode_workers + speed.devices if speed else None


def _measured_of(recipe: Recipe) -> Speed | None:
    if not can_measure(recipe):
        return None
    key = _key(work_of(recipe))
    found = (e for e in _entries() if all(e[name] == value for name, value in key.items()))
    entry = next(found, None)
    return _speed(entry) if entry else None


def _speed(entry: Mapping[str, Any]) -> Speed | None:
    """Return what was measured; None where another version did."""
    try:
        return Speed(**entry["speed"])
    except TypeError:
        return None


def _key(work: Work) -> dict[str, Any]:
    return {"machine": this_machine(), "work": work.to_dict()}


def _entries() -> list[dict[str, Any]]:
    found = read_json(machine_folder() / KEPT) or {}
    return found["measured"] if found.get("format") == FORMAT else []


def this_machine() -> dict[str, Any]:
    """Return what speed depends on; the folder is that of one host already."""
    gpus = _gpus()
    return {
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "gpus": gpus,
        # Of different ones those that are used, and in which order, is not in their list.
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else "",
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def _gpus() -> list[str]:
    """Return the models of the usable GPUs as the driver lists them.

    PyTorch would begin to use a GPU to say its name, in a process that computes nothing there.
    """
    if not torch.cuda.is_available():
        return []
    listed = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in listed for line in file.read_text(encoding="utf-8").splitlines()]
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return models[: torch.cuda.device_count()] or ["GPU"] * torch.cuda.device_count()
