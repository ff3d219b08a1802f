"""The video encoder: which layers run, positions for other clips, which frames are seen; sizes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from benchmarks.parity.recording import (
    EXACT,
    Comparison,
    Recording,
    compare_content,
)
from benchmarks.parity.videochat2.texts import tokenizer_of
from msvqa.data.conversations.frame_message import decimal
from msvqa.data.medium import Medium
from msvqa.data.sampling import middles, parts, shown_at_rate
from msvqa.models.layers.positions import resize, sinusoids
from msvqa.models.layers.qformer import QFormerConfig
from msvqa.models.layers.video_transformer import VideoTransformerConfig, published
from msvqa.models.model import Sizes
from msvqa.models.parts import parameters_of
from msvqa.models.videochat2 import VideoChat2
from msvqa.models.weights import load_strictly
from msvqa.mvbench.sampling import demo

TABLE = 1e-6
"""The reference's table of positions is single precision."""
OPTIONAL = ("heads", "extra_queries", "projection", "language", "adapter")
TRUNCATED = 1e-2
"""Two encoders that differ in a layer or a norm differ by more."""


def video_of(meta: Mapping[str, Any]) -> VideoTransformerConfig:
    """Return the recorded video encoder, of whose layers the last one does not run."""
    width = meta.get("vision_width", meta.get("width"))
    runs = meta.get("vision_blocks_run", meta.get("blocks_run"))
    heads = meta.get("vision_heads", meta.get("heads"))
    return VideoTransformerConfig(
        width=width, depth=runs + 1, heads=heads, patch_px=meta["patch"], drop_path=0.0
    )


def watched(model: VideoChat2, video: Tensor) -> Tensor:
    """Return what the encoder sees (V, T, N, W) of scaled clips (V, T, 3, H, W)."""
    clips = rearrange(video, "v t c h w -> v c t h w")
    tokens = model.video.embed(clips)
    (found,) = model.video.layers(tokens, [len(model.video.blocks) - 1])
    seen: Tensor = found.unflatten(1, (video.shape[1], -1))
    return seen


def vision(recording: Recording) -> Iterator[Comparison]:
    """A published file as it loads, clips of all lengths, and positions for other ones."""
    meta, state = recording.meta, recording.state()
    frames, grid = meta["checkpoint_frames"], meta["grid"]
    sizes = Sizes(frames=frames, size_px=grid * meta["patch"])
    config = VideoChat2.Config(
        video=video_of(meta), qformer=QFormerConfig(width=32, layers=1, heads=4, words=8)
    )
    model = VideoChat2(config, sizes, OPTIONAL).double().eval()
    start = "vision_encoder.encoder."
    own, above = published(state, meta["blocks_run"], start)
    load_strictly(model.video, own, recording.file, ignored=("norm.",))
    left = sorted([*above, *(f"{start}{name}" for name in own if name.startswith("norm."))])
    unused = [f"vision_encoder.{name}" for name in meta["unused_of_full_checkpoint"]]
    yield compare_content(recording.file, "left out", left, unused)
    norm = {k.partition(".")[2]: v for k, v in state.items() if k.startswith("vision_layernorm.")}
    model.norm.load_state_dict(norm)
    with torch.no_grad():
        for clip in sorted(recording.names("in/video_T")):
            yield from _clips(recording, model, clip.rpartition("_")[2])
    yield from _positions(recording, frames, meta["width"])


def _clips(recording: Recording, model: VideoChat2, name: str) -> Iterator[Comparison]:
    video = recording.input(f"video_{name}")
    seen = watched(model, video)
    yield recording.compare(f"out64/{name}/encoder", seen, TABLE)
    yield recording.compare(f"out64/{name}/vision_tokens", model.placed(seen), TABLE)
    places = model.video.positions(video.shape[1], model.video.grid)
    yield recording.compare(f"out64/{name}/encoder_positions", places, TABLE)
    for other in recording.names(f"out64/{name}/not_"):
        distance = float(np.abs(recording[other] - seen.numpy()).max())
        yield Comparison(recording.file, f"{other}: equal", float(distance < TRUNCATED), EXACT)


def _positions(recording: Recording, frames: int, width: int) -> Iterator[Comparison]:
    table = sinusoids(frames * 4, width).view(frames, 4, width)
    for count in (2, 6, 32):
        found = resize(table, count, 2).flatten(0, 1)
        yield recording.compare(f"out64/positions/T4_to_T{count}", found, TABLE)
    wide = sinusoids(frames * 196, width).view(frames, 196, width)
    for name, own, count in (("T4_to_T8", wide, 8), ("image", wide[:1], 1)):
        found = resize(own, count, 5).flatten(0, 1)
        yield recording.compare(f"out64/positions/P14_to_P5_{name}", found, 1e-5)
    between = resize(table, 1, 2).flatten(0, 1)
    image = table[0].numpy()
    yield recording.compare("out64/not_image_T4_to_T1", between, TABLE)
    distance = float(np.abs(between.numpy() - image).max())
    yield Comparison(recording.file, "image: between", float(distance < TRUNCATED), EXACT)
    real = sinusoids(frames * 196, 1024).view(frames, 196, 1024)
    for count in (8, 16):
        rows, columns = (recording.input(f"real_T{count}_{x}") for x in ("rows", "columns"))
        found = resize(real, count, 14)
        entries = found.flatten(0, 1)[rows][:, columns]
        yield recording.compare(f"out64/real_T{count}", entries, TABLE)
        sums = found.sum(dim=(1, 2))
        yield recording.compare(f"out64/real_T{count}_frame_sums", sums, TABLE * 196 * 1024)


def frame_sampling(recording: Recording) -> Iterator[Comparison]:
    """Frames of the demo and of training, in the middle, by chance and at a rate; decimals."""
    for frames, count in recording["demo_cases"].tolist():
        found = demo(frames, 0.0, Medium(""), count)
        yield recording.compare(f"demo_{frames}_{count}", found, EXACT)
    for frames, count in recording["train_cases"].tolist():
        name = f"train_{frames}_{count}"
        yield recording.compare(f"{name}_middle", middles(frames, count), EXACT)
        first, last = parts(frames, count).T
        # Training draws one of several places of each part; the recorded draws are of all of it.
        draws = recording[f"{name}_u"]
        drawn = first[: len(draws)] + np.floor(draws * (last - first + 1)[: len(draws)])
        drawn = drawn[np.minimum(np.arange(count), len(drawn) - 1)]
        yield recording.compare(f"{name}_rand_inclusive", drawn, EXACT)
        for theirs in ("rand_reference", "permutation"):
            if f"{name}_{theirs}" in recording:
                recording.ignore(f"{name}_{theirs}", "the reference never draws the last frame")
    recording.ignore("train_fallback_cases", "which of them the reference draws otherwise")
    yield from _fixed(recording)
    yield from _decimals(recording)


def _fixed(recording: Recording) -> Iterator[Comparison]:
    for name in recording.names("train_fix"):
        offset, frames, count = (int(x) for x in name.removeprefix("train_fix").split("_"))
        found = parts(frames, count)[:, 0] + offset
        yield recording.compare(name, found, EXACT)
    for name in recording.names("train_fps"):
        wanted, fps, length, most = map(float, name.removeprefix("train_fps").split("_"))
        found = shown_at_rate(np.arange(int(length)) / fps, wanted)
        found = found[: int(most)] if most > 0 else found
        # Theirs takes the frame that begins next to a time, ours the one that is shown then.
        yield recording.compare(name, found, 1.0)


def _decimals(recording: Recording) -> Iterator[Comparison]:
    times = recording["decimal_frames"] / recording["decimal_fps"]
    found, expected = [decimal(time) for time in times], recording["decimal_numpy"].tolist()
    yield compare_content(recording.file, "decimal_numpy", found, expected)
    recording.ignore("decimal_python", "another rounding of ties, see `decimal`")


def tokenizer(recording: Recording) -> Iterator[Comparison]:
    """The words of a recorded tokenizer as the library reads them, with their ids."""
    name = recording.file.removeprefix("tokenizer_")
    found = tokenizer_of(recording.path.parent, name)
    expected = dict(recording.content["model"]["vocab"])
    expected |= {token["content"]: token["id"] for token in recording.content["added_tokens"]}
    yield Comparison(recording.file, "words: none", float(not expected), EXACT)
    for word, number in sorted(expected.items()):
        yield compare_content(recording.file, word, found.get_vocab().get(word), number)
    yield compare_content(recording.file, "how many", len(found), len(expected))


MODULES = {
    "vision_encoder": "video", "vision_layernorm": "norm", "query_tokens": "qformer.queries",
    "extra_query_tokens": "qformer.extra_queries", "vision_proj": "heads.vision",
    "text_proj": "heads.text", "itm_head": "heads.matching", "temp": "heads.temperature",
    "vision_temp_embed": "frame_places", "llama_proj": "projection", "mistral_proj": "projection",
}  # fmt: skip
"""Modules of the reference, and where the same weights are here."""


def parameters(recording: Recording) -> Iterator[Comparison]:
    """Parameters of the modules of the first stage at their real sizes, and what is trained."""
    content = recording.content
    config = VideoChat2.Config()
    sizes = Sizes(frames=content["config"]["frames_stage1"], size_px=224)
    for name, absent in (
        ("stage1", ("extra_queries", "projection", "language", "adapter")),
        ("stage2_vicuna", ("heads", "projection", "language", "adapter")),
    ):
        with torch.device("meta"):
            model = VideoChat2(config, sizes, absent)
        yield from _counted(recording, model, content[name]["modules"], name)


def _counted(
    recording: Recording, model: VideoChat2, modules: Mapping[str, Any], stage: str
) -> Iterator[Comparison]:
    own = dict(model.named_parameters())
    text = sum(p.numel() for p in parameters_of(model.parts())["text"])
    queries = sum(p.numel() for name, p in own.items() if name.startswith("qformer."))
    ours = {"qformer text branch": text}
    extra = model.qformer.extra_queries
    besides = model.qformer.queries.numel() + (0 if extra is None else extra.numel())
    ours["qformer query branch"] = queries - text - besides
    for module, counts in modules.items():
        place = MODULES.get(module)
        if place and any(_inside(name, place) for name in own):
            found = sum(p.numel() for name, p in own.items() if _inside(name, place))
        elif module in ours:
            found = ours[module]
        else:
            continue  # the language model and its projection: their folder is not there
        yield compare_content(recording.file, f"{stage}/{module}", found, counts["parameters"])


def _inside(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")
