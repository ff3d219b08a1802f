"""The models at the sizes of a recording, with its recorded weights, and what they say."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.recording import Comparison, Recording
from benchmarks.parity.similarity.tolerance import gradients, leaf, listed, results, tensor
from msvqa import losses
from msvqa.models.layers.vlad import NeXtVLAD, VLADSizes
from msvqa.models.mix_nextvlad import MixNeXtVLAD
from msvqa.models.model import Sizes
from msvqa.models.uniter import Uniter
from msvqa.models.weights import load_strictly
from msvqa.objectives.tagging import Tagging

# Legend: B videos, T frames, D numbers of a frame, S words, K clusters.

VLAD_NAMES = {
    "expand.weight": "expand_kernel", "expand.bias": "expand_bias",
    "attention.weight": "attention_kernel", "attention.bias": "attention_bias",
    "cluster.weight": "cluster_kernel", "norm.weight": "bn_gamma", "norm.bias": "bn_beta",
    "norm.running_mean": "bn_mean", "norm.running_var": "bn_var", "centres": "centers",
    "output.weight": "fc_kernel", "output.bias": "fc_bias",
}  # fmt: skip
"""Ours and theirs; kernels are [in, out]."""
EXPERT_NAMES = {
    **{f"vision.{ours}": f"vlad_{theirs}" for ours, theirs in VLAD_NAMES.items()},
    "fusion.joined.weight": "fuse_kernel", "fusion.joined.bias": "fuse_bias",
    "fusion.squeeze.weight": "se_down_kernel", "fusion.excite.weight": "se_up_kernel",
    "tags.weight": "cls_kernel", "tags.bias": "cls_bias",
}  # fmt: skip
MIX_NAMES = {
    "title.weight": "text_map_kernel", "title.bias": "text_map_bias",
    "gate.weight": "gate_kernel", "gate.bias": "gate_bias",
    "gate_norm.weight": "gate_bn_gamma", "gate_norm.bias": "gate_bn_beta",
    "gate_norm.running_mean": "gate_bn_mean", "gate_norm.running_var": "gate_bn_var",
}  # fmt: skip
UNITER_NAMES = {
    "frames.weight": "frame_map_kernel", "frames.bias": "frame_map_bias",
    "project.weight": "fc_kernel", "project.bias": "fc_bias",
    "tags.weight": "cls_kernel", "tags.bias": "cls_bias",
    "head.dense.weight": "mlm_dense_kernel", "head.dense.bias": "mlm_dense_bias",
    "head.norm.weight": "mlm_ln_gamma", "head.norm.bias": "mlm_ln_beta",
    "head.bias": "mlm_out_bias",
}  # fmt: skip


def nextvlad(recording: Recording) -> Iterator[Comparison]:
    """One layer: with and without padding, in training, its gradient and its running averages."""
    width = recording["frames"].shape[2]
    layer = NeXtVLAD(
        VLADSizes(
            width=width,
            output=len(recording["w_fc_bias"]),
            clusters=int(recording["clusters"]),
            groups=int(recording["groups"]),
            expansion=int(recording["expansion"]),
            dropout=0.0,
            mask_padding=False,
        )
    )
    _load(layer, recording, VLAD_NAMES)
    norm = layer.norm
    momentum = norm.momentum or 0.0
    count, frames = tensor(recording, "num_frames"), leaf(recording, "frames")
    layer.eval()
    every = torch.full_like(count, frames.shape[1])
    found: dict[str, Tensor | None] = {
        "bn_eps": torch.tensor(norm.eps),
        "bn_keras_momentum": torch.tensor(1 - momentum),
        "out_eval": layer(frames, count),
        "out_eval_unmasked": layer(frames, every),
        "vlad_before_fc_eval": layer.aggregate(frames, count),
    }
    found["out_train"] = out = layer.train()(frames, count)
    out.square().sum().backward()
    # Theirs is updated with the biased variance of the rows, torch's with the unbiased one.
    rows = len(frames) * frames.shape[1]
    before = (1 - momentum) * tensor(recording, "w_bn_var")
    assert norm.running_var is not None
    found["bn_mean_after"] = norm.running_mean
    found["bn_var_after"] = before + (norm.running_var - before) * (rows - 1) / rows
    yield from results(recording, found)
    yield from gradients(recording, {"grad_frames_of_sumsq_train": frames.grad})


def mix_head(recording: Recording) -> Iterator[Comparison]:
    """All of the mixture behind the language model, with running and with batch statistics."""
    model = _mix(recording)
    weights = {
        "contrastive": float(recording["contrastive_weight"]),
        "mixture": float(recording["reg_weight"]),
    }
    objective = Tagging(Tagging.Config(**weights), model)
    recording.ignore("kl_temperature", "it shows in the divergence, and cannot be set")
    # Training moves the running statistics that evaluation reads.
    model.eval()
    yield from _mix_mode(recording, objective, "eval")
    batch = _mix_batch(recording)
    found = model.mix(batch["vectors"], batch["num_frames"], batch["summary"])
    asl = Tagging(Tagging.Config(tag_loss="asl", **weights), model)
    tags = asl.tags_of_views(found, batch["tag_indices"])
    total = asl.combined(found, batch)["loss"] * len(tags)
    yield from results(recording, {"eval_asl_loss_tag": tags, "eval_asl_loss_sum": total})
    model.train()
    yield from _mix_mode(recording, objective, "train")


def _mix(recording: Recording) -> MixNeXtVLAD:
    config = MixNeXtVLAD.Config(
        text={"width": recording["pooled_text"].shape[1], "heads": 1, "layers": 1,
              "vocabulary": 2, "inner_width": 4, "positions": 2},
        experts=len(recording["eval_aux_preds"]),
        hidden_size=len(recording["w_text_map_bias"]),
        embedding_size=len(recording["w_e1_fuse_bias"]),
        clusters=int(recording["clusters"]),
        groups=int(recording["groups"]),
        expansion=int(recording["expansion"]),
        reduction=int(recording["se_ratio"]),
        dropout=0.0,
    )  # fmt: skip
    tags, (_, frames, width) = recording["labels"].shape[1], recording["frames"].shape
    model = MixNeXtVLAD(config, Sizes(width=width, frames=frames, tags=tags))
    names = dict(MIX_NAMES)
    for number in range(config.experts):
        names |= {
            f"experts.{number}.{ours}": f"e{number + 1}_{theirs}"
            for ours, theirs in EXPERT_NAMES.items()
        }
    _load(model, recording, names, apart="text.")
    return model


def _mix_mode(recording: Recording, objective: Tagging, mode: str) -> Iterator[Comparison]:
    batch, config = _mix_batch(recording), objective.config
    model = objective.model
    assert isinstance(model, MixNeXtVLAD)
    described = model.mix(batch["vectors"], batch["num_frames"], batch["summary"])
    experts = described.experts
    assert experts is not None
    tags = objective.tags_of_views(described, batch["tag_indices"])
    contrast = config.contrastive * objective.contrasted(experts, batch)
    apart = losses.mixture_divergence(described.logits, experts.logits).mean()
    total = objective.combined(described, batch)["loss"] * len(tags)
    found = {
        "pred": described.logits.sigmoid(),
        "aux_preds": experts.logits.sigmoid(),
        "mix_embedding": described.embedding,
        "vision": experts.vision,
        "text": experts.text,
        "reg": apart,
        "loss_tag": tags,
        "loss_contrastive": contrast,
        "loss_vector": tags + config.mixture * apart + contrast,
        "loss_sum": total,
    }
    yield from results(recording, {f"{mode}_{name}": value for name, value in found.items()})
    total.backward()
    slopes = {"frames": batch["vectors"].grad, "pooled_text": batch["summary"].grad}
    yield from gradients(recording, {f"{mode}_grad_{n}": slope for n, slope in slopes.items()})


def _mix_batch(recording: Recording) -> dict[str, Tensor]:
    return _batch(recording) | {"summary": leaf(recording, "pooled_text")}


def uniter(recording: Recording) -> Iterator[Comparison]:
    """The whole model: states, embedding in three ways, tags, words, losses, a gradient."""
    batch = _batch(recording) | {
        "tokens": tensor(recording, "input_ids").long(),
        "token_mask": tensor(recording, "attention_mask").bool(),
        "token_labels": tensor(recording, "mlm_labels").long(),
    }
    model = _uniter(recording, "mean")
    described = model.describe(batch)
    assert described.words is not None
    weight = float(recording["mlm_weight"])
    objective = Tagging(Tagging.Config(masked_words=weight), model)
    asl = Tagging(Tagging.Config(tag_loss="asl", masked_words=weight), model)
    parts = objective.loss(batch)
    tags = objective.tags_of_views(described, batch["tag_indices"])
    total = parts["loss"] * len(tags)
    found: dict[str, Tensor | None] = {
        "encoder_out": model.encode(batch),
        "embedding": described.embedding,
        "embedding_cls": _uniter(recording, "first").describe(batch).embedding,
        "embedding_max": _uniter(recording, "max").describe(batch).embedding,
        "tag_prob": described.logits.sigmoid(),
        "mlm_logits": model.predict_words(described.words),
        "loss_tag": tags,
        "loss_tag_asl": asl.tags_of_views(described, batch["tag_indices"]),
        "loss_mlm": parts["masked_words"],
        "loss_vector": tags + weight * parts["masked_words"],
        "loss_sum": total,
    }
    yield from results(recording, {f"out_{name}": value for name, value in found.items()})
    total.backward()
    yield from gradients(recording, {"out_grad_frames_of_sum": batch["vectors"].grad})


def _uniter(recording: Recording, pool: Any) -> Uniter:
    kind = "roformer" if "w_enc_encoder.embed_positions.weight" in recording else "bert"
    text = {
        "kind": kind,
        "vocabulary": int(recording["vocab"]),
        "positions": int(recording["max_positions"]),
        "width": int(recording["hidden"]),
        "layers": int(recording["layers"]),
        "heads": int(recording["heads"]),
        "inner_width": int(recording["intermediate"]),
        "dropout": 0.0,
    }
    config = Uniter.Config(text=text, embedding_size=len(recording["w_fc_bias"]), pool=pool)
    tags, (_, frames, width) = recording["labels"].shape[1], recording["frames"].shape
    model = Uniter(config, Sizes(width=width, frames=frames, tags=tags)).eval()
    language = {
        name.removeprefix("w_enc_"): tensor(recording, name) for name in recording.names("w_enc_")
    }
    for name in recording.names("w_enc_pooler."):
        recording.ignore(name, "nothing runs it")
    load_strictly(model.text.network, language, recording.file, ignored=("pooler.",))
    _load(model, recording, UNITER_NAMES, apart="text.")
    recording.ignore("layer_norm_eps", "it shows in the states, and cannot be set")
    return model


def _batch(recording: Recording) -> dict[str, Tensor]:
    """Return frames and tags of a recording as a batch."""
    videos = len(recording["frames"])
    return {
        "vectors": leaf(recording, "frames"),
        "num_frames": tensor(recording, "num_frames").long(),
        "tag_indices": listed(recording["labels"]),
        "video": torch.arange(videos),
        "video_index": torch.arange(videos),
        "weight": torch.ones(videos),
        "normalizer": torch.tensor(float(videos)),
        "workers": torch.tensor(1.0),
    }


def _load(
    module: torch.nn.Module, recording: Recording, names: Mapping[str, str], apart: str = "\0"
) -> None:
    """Load recorded weights by our names; those of `apart` are loaded elsewhere."""
    own = module.state_dict()
    given = {name: value for name, value in own.items() if name.startswith(apart)}
    for ours, theirs in names.items():
        value = recording[f"w_{theirs}"]
        value = value.T if theirs.endswith("kernel") else value
        if theirs.endswith("centers"):
            value = value[0]
        given[ours] = torch.from_numpy(np.ascontiguousarray(value))
    load_strictly(module, given, recording.file)
