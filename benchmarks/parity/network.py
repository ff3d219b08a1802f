"""Parts of the network, the reasoning units and the whole model."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity.recording import (
    EXACT,
    Comparison,
    Recording,
    build_model,
    in_precision,
    load_part,
    model_batch,
)
from msvqa.models.layers.network import GraphNetwork
from msvqa.models.reference import from_reference, to_reference


def question_encoder(recording: Recording) -> Iterator[Comparison]:
    """Words, words in context and sentence."""
    encoder = load_part(recording, "question", "linguistic_input_unit")
    length = recording.input("question_len")
    words, contextual = encoder(recording.input("questions"), length)
    yield recording.compare("out64/words", words)
    yield recording.compare("out64/contextual", contextual)
    yield recording.compare("out64/sentence", encoder.summarize(words, length))


def appearance_encoder(recording: Recording) -> Iterator[Comparison]:
    """Frames to clips."""
    encoder = load_part(recording, "appearance", "visual_appearance_input_unit")
    yield recording.compare("out64/clips", encoder(recording.input("appearance")))


def query_attention(recording: Recording) -> Iterator[Comparison]:
    """Words to question vector."""
    attention = load_part(
        recording, "reasoning.question_attention.0", "visual_input_unit.queryAttn.0"
    )
    names = ("words", "contextual", "question_len")
    query, weights = attention(*map(recording.input, names))
    yield recording.compare("out64/query", query)
    yield recording.compare("out64/attn", weights)


def query_punish(recording: Recording) -> Iterator[Comparison]:
    """Scores of clips."""
    punishment = load_part(
        recording, "reasoning.punish_motion.0", "visual_input_unit.queryPunish_motion.0"
    )
    scores = punishment(recording.input("query"), recording.input("visual"))
    yield recording.compare("out64/scores", scores)


def gat(recording: Recording) -> Iterator[Comparison]:
    """Graph attention."""
    graph = load_part(recording, "reasoning.common_motion.0", "visual_input_unit.mcGCN.0")
    nodes, scores = recording.input("nodes"), recording.input("scores")
    new, attention = graph(nodes, scores)
    yield recording.compare("out64/nodes", new)
    yield recording.compare("out64/attn", attention)
    yield recording.compare("out64/nodes_no_scores", graph(nodes, torch.ones_like(scores))[0])


def view_attention(recording: Recording) -> Iterator[Comparison]:
    """Mixture of two views."""
    views = load_part(recording, "reasoning.view_motion.0", "visual_input_unit.attention_motion.0")
    fused, weights = views(recording.input("stacked"))
    yield recording.compare("out64/fused", fused)
    yield recording.compare("out64/beta", weights)


def mfb(recording: Recording) -> Iterator[Comparison]:
    """Product fusion."""
    fusion = load_part(recording, "fusion", "visual_input_unit.visualfusion")
    fused = fusion(recording.input("appearance"), recording.input("motion"))
    yield recording.compare("out64/fused", fused)


def readout(recording: Recording) -> Iterator[Comparison]:
    """Clips to one vector."""
    pooling = load_part(recording, "readout", "feature_aggregation")
    yield recording.compare("out64/pooled", pooling(recording.input("nodes")))


def answer_decoder(recording: Recording) -> Iterator[Comparison]:
    """Logits, in both modes of batch norm."""
    decoder = load_part(recording, "answer", "output_unit")
    inputs = recording.input("sentence"), recording.input("visual")
    yield recording.compare("out64/logits", decoder(*inputs))
    yield recording.compare("out64/logits_train_nodrop", decoder.train()(*inputs))
    yield recording.compare("out64/running_mean_after", decoder.norm.running_mean)
    yield recording.compare("out64/running_var_after", decoder.norm.running_var)


def units(recording: Recording) -> Iterator[Comparison]:
    """All reasoning units and the product fusion."""
    network = build_model(recording).network
    own = {n: v for n, v in network.state_dict().items() if n.startswith(("reasoning.", "fusion."))}
    given = {f"visual_input_unit.{name}": value for name, value in recording.state().items()}
    renamed = from_reference(given, own, recording.meta["heads"], recording.file)
    network.load_state_dict(network.state_dict() | renamed)
    fused = keep_last_views(network)
    names = ("appearance", "motion", "words", "contextual", "question_len")
    found = network.reasoning(*map(recording.input, names))
    yield recording.compare("out64/visual", network.fusion(found.appearance, found.motion))
    yield from _graph_outputs(recording, found, fused)


def full_eval(recording: Recording) -> Iterator[Comparison]:
    """The whole model, and its weights renamed there and back."""
    model = build_model(recording)
    model.load_reference(recording.state(), recording.file)
    fused = keep_last_views(model.network)
    found = model.answer(model_batch(recording))
    yield recording.compare("out64/logits", found.logits)
    yield from _graph_outputs(recording, found, fused)
    single = model.float().answer(in_precision(model_batch(recording), torch.float32))
    yield recording.compare("out/logits", single.logits, 2e-5)
    back = to_reference(model.network.state_dict(), recording.meta["heads"])
    names_differ = set(back) ^ set(recording.state())
    yield Comparison(recording.file, "weights renamed there and back", len(names_differ), EXACT)


def keep_last_views(network: GraphNetwork) -> dict[str, Tensor]:
    """Return a dictionary that a forward pass fills with the fused views of the last unit."""
    fused: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: fused.update({name: output[0]})

    network.reasoning.view_appearance[-1].register_forward_hook(keep("app_embed_last"))
    network.reasoning.view_motion[-1].register_forward_hook(keep("mot_embed_last"))
    return fused


def _graph_outputs(
    recording: Recording, found: Any, fused: dict[str, Tensor]
) -> Iterator[Comparison]:
    for name, value in fused.items():
        yield recording.compare(f"out64/{name}", value)
    for ours, theirs in (("appearance", "app"), ("motion", "mot")):
        for view in ("common", "specific"):
            stacked = torch.stack(getattr(found, f"{view}_{ours}"))
            yield recording.compare(f"out64/{view}_{theirs}", stacked)
