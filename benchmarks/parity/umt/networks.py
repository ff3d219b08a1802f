"""Masks, positions, student and teacher."""

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from benchmarks.parity.recording import EXACT, STORED_AS_FLOAT, Comparison, Recording
from msvqa.models.layers import masking, positions
from msvqa.models.layers.alignment_heads import AlignmentHeads
from msvqa.models.layers.clip_tower import ClipTower, ClipTowerConfig
from msvqa.models.layers.video_transformer import (
    VideoTransformer,
    VideoTransformerConfig,
    take,
)


def attention_mask(recording: Recording) -> Iterator[Comparison]:
    """Masks of given draws, and the teacher's tokens that they leave; attention that runs out."""
    for name in recording.names():
        if not name.endswith("_exp_noise"):
            continue
        case = name.removesuffix("_exp_noise")
        videos, times = recording[f"{case}_BT"].tolist()
        attention, draws = (
            rearrange(torch.from_numpy(recording[f"{case}_{part}"]), "(v t) n -> v t n", v=videos)
            for part in ("attn", "exp_noise")
        )
        ratio, tokens = float(recording[f"{case}_ratio"]), attention.shape[2]
        count = torch.tensor(masking.visible_count(tokens, ratio))
        yield recording.compare(f"{case}_n_visible_per_frame", count, EXACT)
        order = rearrange((attention / draws).argsort(dim=-1, descending=True), "v t n -> (v t) n")
        yield recording.compare(f"{case}_importance", order, EXACT)
        visible = masking.by_attention(attention, draws, ratio)
        mask = masking.hidden(visible, times * tokens)
        yield recording.compare(f"{case}_mask", mask, EXACT)
        if f"{case}_teacher" in recording:
            teacher = torch.from_numpy(recording[f"{case}_teacher"])
            yield recording.compare(f"{case}_targets", take(teacher, visible), EXACT)
    yield from _degenerate(recording)


def _degenerate(recording: Recording) -> Iterator[Comparison]:
    """Fewer weights than visible tokens: all that have one are seen, and others beside them."""
    attention = torch.from_numpy(recording["degenerate_attn"])[:, None]  # (V, 1, N)
    count, tokens = int(recording["degenerate_n_visible"]), attention.shape[2]
    draws = torch.empty_like(attention).exponential_(generator=torch.Generator().manual_seed(0))
    visible = masking.by_attention(attention, draws, 1 - count / tokens)
    seen = ~masking.hidden(visible, tokens)
    wrong = int((seen.sum(dim=1) != count).sum())
    wrong += int(((attention[0, 0] > 0) & ~seen[0]).sum())
    yield Comparison(recording.file, "degenerate: rows and tokens", float(wrong), EXACT)


def position_tables(recording: Recording) -> Iterator[Comparison]:
    """Sinusoids, and tables for other numbers of frames and patches."""
    for name in recording.names("n_by_d_"):
        count, width = map(int, name.removeprefix("n_by_d_").split("x"))
        yield recording.compare(name, positions.sinusoids(count, width))
    table = positions.sinusoids(*recording["table_T4_P3"].shape)
    yield recording.compare("table_T4_P3", table)
    clip = rearrange(table, "(t n) d -> t n d", n=9)
    yield recording.compare("image_table_P3", clip[0])
    for frames in (8, 16, 1):
        found = positions.resize_time(clip, frames).flatten(0, 1)
        yield recording.compare(f"T4_to_T{frames}", found)
    yield recording.compare("P3_to_P5", positions.resize(clip, 4, 5).flatten(0, 1))
    yield recording.compare("P3_to_P5_then_T8", positions.resize(clip, 8, 5).flatten(0, 1))


def student(recording: Recording) -> Iterator[Comparison]:
    """Student and alignment heads on visible tokens and on all."""
    video = _double(recording, "video")  # (V, 3, T, H, W)
    width, patch = (recording["patch_w"].shape[axis] for axis in (0, 3))
    depth, last = int(recording["depth"]), int(recording["K"])
    config = VideoTransformerConfig(
        width=width,
        depth=depth,
        heads=int(recording["heads"]),
        patch_px=patch,
        drop_path=0.0,
        mlp_ratio=recording["b0_fc1_w"].shape[0] / width,
    )
    network = VideoTransformer(config, video.shape[2], video.shape[3]).double().eval()
    network.load_state_dict(_student_state(recording, depth))
    heads = AlignmentHeads(last, width, recording["d0_w"].shape[0], eps=1e-6).double()
    heads.load_state_dict(_head_state(recording, last))
    mask = torch.from_numpy(recording["mask"])
    visible = (~mask).nonzero()[:, 1].view(len(mask), -1)
    tapped = network.layers(network.embed(video, visible), range(depth - last, depth))
    yield recording.compare("expected_encoded_visible", network.norm(tapped[-1]), STORED_AS_FLOAT)
    places = network.positions(video.shape[2], network.grid)[visible]
    aligned = heads([network.norm(layer) for layer in tapped], places)
    yield recording.compare("expected_aligned", aligned, STORED_AS_FLOAT)
    unit = functional.normalize(aligned, dim=-1)
    yield recording.compare("expected_aligned_l2", unit, STORED_AS_FLOAT)
    yield recording.compare("expected_encoded_unmasked", network(video), STORED_AS_FLOAT)


def teacher(recording: Recording) -> Iterator[Comparison]:
    """Last layers of a CLIP tower, normed and projected, and its class token's attention."""
    video = _double(recording, "video")
    width, patch = (recording["patch_w"].shape[axis] for axis in (0, 3))
    config = ClipTowerConfig(
        width=width,
        depth=int(recording["layers"]),
        heads=int(recording["heads"]),
        patch_px=patch,
        output_width=recording["proj_w"].shape[0],
        trained_px=video.shape[3],
    )
    tower = ClipTower(config).double()
    tower.load_state_dict(_teacher_state(recording))
    lesson = tower.learn(rearrange(video, "v c t h w -> (v t) c h w"), int(recording["keep_last"]))
    tokens = tower.project(torch.stack(lesson.layers))
    tokens = rearrange(tokens, "k (v t) n c -> k v (t n) c", v=len(video))
    yield recording.compare("expected_tokens", tokens, STORED_AS_FLOAT)
    yield recording.compare(
        "expected_tokens_l2", functional.normalize(tokens, dim=-1), STORED_AS_FLOAT
    )
    yield recording.compare("expected_cls_attn", lesson.attention, STORED_AS_FLOAT)


def _double(recording: Recording, name: str) -> Tensor:
    return torch.from_numpy(recording[name]).double()


def _named(recording: Recording, names: dict[str, str]) -> dict[str, Tensor]:
    return {ours: _double(recording, theirs) for ours, theirs in names.items()}


def _student_state(recording: Recording, depth: int) -> dict[str, Tensor]:
    names = {f"norm.{kind}": f"norm_{kind[0]}" for kind in ("weight", "bias")}
    names |= {f"patch_embed.proj.{kind}": f"patch_{kind[0]}" for kind in ("weight", "bias")}
    for number in range(depth):
        start, block = f"b{number}_", f"blocks.{number}."
        names |= {f"{block}attn.{part}_bias": f"{start}{part}_b" for part in "qv"}
        names[f"{block}attn.qkv.weight"] = f"{start}qkv_w"
        pairs = {
            "norm1": "ln1",
            "norm2": "ln2",
            "attn.proj": "o",
            "mlp.fc1": "fc1",
            "mlp.fc2": "fc2",
        }
        names |= _weights_and_biases(pairs, block, start)
    return _named(recording, names)


def _head_state(recording: Recording, last: int) -> dict[str, Tensor]:
    names = {}
    for number in range(last):
        pairs = {"head": "", "norm": "ln_"}
        names |= {
            f"{number}.{ours}.{kind}": f"d{number}_{theirs}{kind[0]}"
            for ours, theirs in pairs.items()
            for kind in ("weight", "bias")
        }
    return _named(recording, names)


def _teacher_state(recording: Recording) -> dict[str, Tensor]:
    names = _weights_and_biases({"ln_pre": "pre", "ln_post": "post"}, "", "")
    names["conv1.weight"] = "patch_w"
    for number in range(int(recording["layers"])):
        pairs = {
            "ln_1": "ln1",
            "ln_2": "ln2",
            "attn.out_proj": "o",
            "mlp.c_fc": "fc1",
            "mlp.c_proj": "fc2",
        }
        names |= _weights_and_biases(pairs, f"transformer.resblocks.{number}.", f"l{number}_")
    state = _named(recording, names)
    for number in range(int(recording["layers"])):
        for kind in ("weight", "bias"):
            thirds = [_double(recording, f"l{number}_{part}_{kind[0]}") for part in "qkv"]
            state[f"transformer.resblocks.{number}.attn.in_proj_{kind}"] = torch.cat(thirds)
    state["class_embedding"] = _double(recording, "cls").flatten()
    state["positional_embedding"] = _double(recording, "pos")[0]
    return state | {"proj": _double(recording, "proj_w").T}


def _weights_and_biases(pairs: dict[str, str], ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{ours}{own}.{kind}": f"{theirs}{their}_{kind[0]}"
        for own, their in pairs.items()
        for kind in ("weight", "bias")
    }
