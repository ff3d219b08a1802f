"""Parts of the network, the reasoning units and the whole model, in both precisions."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity.recording import EXACT, Comparison, Recording
from benchmarks.parity.videoqa.model import build_model, load_part, model_batch
from msvqa.models.layers.network import GraphNetwork
from msvqa.models.reference import from_reference, to_reference

Found = dict[str, Tensor]


def question_encoder(recording: Recording) -> Iterator[Comparison]:
    """Words, words in context and sentence."""

    def run(dtype: torch.dtype) -> Found:
        encoder = load_part(recording, "question", "linguistic_input_unit").to(dtype)
        length = recording.input("question_len")
        words, contextual = encoder(recording.input("questions"), length)
        sentence = encoder.summarize(words, length)
        return {"words": words, "contextual": contextual, "sentence": sentence}

    return recording.compare_runs(run)


def appearance_encoder(recording: Recording) -> Iterator[Comparison]:
    """Frames to clips."""

    def run(dtype: torch.dtype) -> Found:
        encoder = load_part(recording, "appearance", "visual_appearance_input_unit").to(dtype)
        return {"clips": encoder(recording.input("appearance", dtype))}

    return recording.compare_runs(run)


def query_attention(recording: Recording) -> Iterator[Comparison]:
    """Words to question vector."""
    part, theirs = "reasoning.question_attention.0", "visual_input_unit.queryAttn.0"

    def run(dtype: torch.dtype) -> Found:
        words, contextual = (recording.input(name, dtype) for name in ("words", "contextual"))
        attention = load_part(recording, part, theirs).to(dtype)
        query, weights = attention(words, contextual, recording.input("question_len"))
        return {"query": query, "attn": weights}

    return recording.compare_runs(run)


def query_punish(recording: Recording) -> Iterator[Comparison]:
    """Scores of clips."""
    part, theirs = "reasoning.punish_motion.0", "visual_input_unit.queryPunish_motion.0"

    def run(dtype: torch.dtype) -> Found:
        punishment = load_part(recording, part, theirs).to(dtype)
        inputs = (recording.input(name, dtype) for name in ("query", "visual"))
        return {"scores": punishment(*inputs)}

    return recording.compare_runs(run)


def gat(recording: Recording) -> Iterator[Comparison]:
    """Graph attention."""

    def run(dtype: torch.dtype) -> Found:
        graph = load_part(recording, "reasoning.common_motion.0", "visual_input_unit.mcGCN.0")
        nodes, scores = (recording.input(name, dtype) for name in ("nodes", "scores"))
        new, attention = graph.to(dtype)(nodes, scores)
        alike = graph(nodes, torch.ones_like(scores))[0]
        return {"nodes": new, "attn": attention, "nodes_no_scores": alike}

    return recording.compare_runs(run)


def view_attention(recording: Recording) -> Iterator[Comparison]:
    """Mixture of two views."""
    part, theirs = "reasoning.view_motion.0", "visual_input_unit.attention_motion.0"

    def run(dtype: torch.dtype) -> Found:
        views = load_part(recording, part, theirs).to(dtype)
        fused, weights = views(recording.input("stacked", dtype))
        return {"fused": fused, "beta": weights}

    return recording.compare_runs(run)


def mfb(recording: Recording) -> Iterator[Comparison]:
    """Product fusion."""

    def run(dtype: torch.dtype) -> Found:
        fusion = load_part(recording, "fusion", "visual_input_unit.visualfusion").to(dtype)
        inputs = (recording.input(name, dtype) for name in ("appearance", "motion"))
        return {"fused": fusion(*inputs)}

    return recording.compare_runs(run)


def readout(recording: Recording) -> Iterator[Comparison]:
    """Clips to one vector."""

    def run(dtype: torch.dtype) -> Found:
        pooling = load_part(recording, "readout", "feature_aggregation").to(dtype)
        return {"pooled": pooling(recording.input("nodes", dtype))}

    return recording.compare_runs(run)


def answer_decoder(recording: Recording) -> Iterator[Comparison]:
    """Logits, in both modes of batch norm."""

    def run(dtype: torch.dtype) -> Found:
        decoder = load_part(recording, "answer", "output_unit").to(dtype)
        inputs = [recording.input(name, dtype) for name in ("sentence", "visual")]
        logits, trained = decoder(*inputs), decoder.train()(*inputs)
        return {
            "logits": logits,
            "logits_train_nodrop": trained,
            "running_mean_after": decoder.norm.running_mean,
            "running_var_after": decoder.norm.running_var,
        }

    return recording.compare_runs(run)


def units(recording: Recording) -> Iterator[Comparison]:
    """All reasoning units and the product fusion."""

    def run(dtype: torch.dtype) -> Found:
        network = build_model(recording).network
        own = {
            name: value
            for name, value in network.state_dict().items()
            if name.startswith(("reasoning.", "fusion."))
        }
        given = {f"visual_input_unit.{name}": value for name, value in recording.state().items()}
        renamed = from_reference(given, own, recording.meta["heads"], recording.file)
        network.load_state_dict(network.state_dict() | renamed)
        fused = keep_last_views(network.to(dtype))
        names = ("appearance", "motion", "words", "contextual", "question_len")
        found = network.reasoning(*(recording.input(name, dtype) for name in names))
        visual = network.fusion(found.appearance, found.motion)
        return {"visual": visual, **fused, **_graph_outputs(found)}

    return recording.compare_runs(run)


def full_eval(recording: Recording) -> Iterator[Comparison]:
    """The whole model, and its weights renamed there and back."""
    model = build_model(recording)
    model.load_reference(recording.state(), recording.file)
    fused = keep_last_views(model.network)

    def run(dtype: torch.dtype) -> Found:
        found = model.to(dtype).answer(model_batch(recording, dtype))
        return {"logits": found.logits, **fused, **_graph_outputs(found)}

    yield from recording.compare_runs(run)
    back = to_reference(model.network.state_dict(), recording.meta["heads"])
    names_differ = set(back) ^ set(recording.state())
    yield Comparison(recording.file, "weights renamed there and back", len(names_differ), EXACT)


def keep_last_views(network: GraphNetwork) -> Found:
    """Return a dictionary that a forward pass fills with the fused views of the last unit."""
    fused: Found = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: fused.update({name: output[0]})

    network.reasoning.view_appearance[-1].register_forward_hook(keep("app_embed_last"))
    network.reasoning.view_motion[-1].register_forward_hook(keep("mot_embed_last"))
    return fused


def _graph_outputs(found: Any) -> Found:
    return {
        f"{view}_{theirs}": torch.stack(getattr(found, f"{view}_{ours}"))
        for ours, theirs in (("appearance", "app"), ("motion", "mot"))
        for view in ("common", "specific")
    }
