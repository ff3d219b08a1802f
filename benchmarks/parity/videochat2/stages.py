"""First and third stage, from visual tokens: losses, gradients, adapters, and greedy writing."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.parity.recording import DOUBLE, EXACT, Comparison, Recording, compare
from benchmarks.parity.videochat2.network import (
    LOGITS,
    LOSSES,
    NEEDS_VISION,
    SMOOTHING,
    language_of,
    sequences,
)
from benchmarks.parity.videochat2.texts import tokenizer_of
from benchmarks.parity.videochat2.vision import video_of, watched
from msvqa import losses
from msvqa.models.layers.adapters import AdapterConfig, adapt
from msvqa.models.layers.language_input import IGNORED, Text, assemble, target_logits
from msvqa.models.layers.qformer import QFormerConfig, published
from msvqa.models.layers.writing import WritingConfig, write_answers
from msvqa.models.model import Sizes
from msvqa.models.videochat2 import HeadsConfig, VideoChat2, query_similarity
from msvqa.models.weights import load_strictly
from msvqa.objectives.negatives import negative_weights, paired_rows

FIRST = ("extra_queries", "projection", "language", "adapter")
GRADIENTS, TABLE = 1e-6, 1e-6
"""The reference's table of positions is single precision, and with it all visual tokens."""


def first_stage(recording: Recording, pooling: Any) -> VideoChat2:
    """Return the recorded model of the first stage without its video encoder."""
    meta, state = recording.meta, recording.state()
    config = VideoChat2.Config(
        video=video_of(meta), frames=meta["frames"],
        qformer=QFormerConfig(
            width=meta["hidden"], layers=meta["layers"], heads=meta["heads"],
            feed_forward=meta["intermediate"], words=meta["vocab"],
            max_words=meta["max_positions"], queries=meta["queries"],
        ),
        heads=HeadsConfig(width=meta["embed_dim"], pooling=pooling),
    )  # fmt: skip
    sizes = Sizes(frames=meta["frames"], size_px=meta["image_px"])
    model = VideoChat2(config, sizes, FIRST).double().eval()
    matching = state if pooling == "cat" else recording.state("alt_state")
    own = {f"qformer.{name}": tensor for name, tensor in published(state).items()}
    own |= _renamed(state, {"vision_proj.": "heads.vision.", "text_proj.": "heads.text."})
    own |= _renamed(state, {"vision_layernorm.": "norm.", "temp": "heads.temperature"})
    own |= _renamed(state, {"vision_temp_embed": "frame_places"})
    own |= _renamed(state, {"vision_encoder.encoder.": "video."})
    own |= _renamed(matching, {"itm_head.": "heads.matching."})
    load_strictly(model, own, recording.file)
    return model


def _renamed(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        ours + name.removeprefix(theirs): tensor
        for theirs, ours in names.items()
        for name, tensor in state.items()
        if name.startswith(theirs)
    }


def stage1(recording: Recording) -> Iterator[Comparison]:
    """Contrast, matching, writing and their gradients, from the recorded visual tokens."""
    model = first_stage(recording, "cat")
    tokens = torch.from_numpy(recording["out64/vision_embeds"])
    image = torch.from_numpy(recording["out64/image_vision_embeds"])
    seen = model.placed(watched(model, recording.input("video")))
    yield recording.compare("out64/vision_embeds", seen, TABLE)
    alone = model.placed(watched(model, recording.input("image")))
    first = image[:, : alone.shape[1]]  # theirs gives an image the places of all frames, one by one
    yield compare(recording.file, "image_vision_embeds", alone, first.numpy(), TABLE)
    ids, mask = recording.input("text_ids"), recording.input("text_mask")
    queries, words = model.qformer.look(tokens), model.qformer.read(ids, mask)
    yield recording.compare("out64/query_output", queries)
    yield recording.compare("out64/image_query_output", model.qformer.look(image))
    there = mask.bool()
    expected = recording["out64/text_output"][there.numpy()]
    yield compare(recording.file, "text_output", words[there], expected, DOUBLE)
    yield recording.compare("out64/text_cls", words[:, 0])
    video, text = model.encode_video(queries), model.encode_text(words)
    projected = model.heads.vision(queries).detach(), model.heads.text(words[:, 0]).detach()
    yield recording.compare("out64/vision_proj", projected[0])
    yield recording.compare("out64/text_proj", projected[1])
    given = recording.input("temp").tolist()
    clamped = torch.tensor([_clamped(model, t) for t in given], dtype=torch.float64)
    yield recording.compare("out64/temp_clamped", clamped, 1e-9)
    with torch.no_grad():
        model.heads.temperature.copy_(torch.from_numpy(recording["state/temp"]))
    for group in ("plain", "repeat"):
        yield from _contrasts(recording, projected, group)
        yield from _weights(recording, model, (video.detach(), text.detach()), group)
        for pooling in ("none", "add", "cat"):
            yield from _matchings(
                recording, first_stage(recording, pooling), tokens, (group, pooling)
            )
    # The recorded tokens, with the gradients of those that are made of pixels.
    yield from _total(recording, model, tokens + (seen - seen.detach()))


def _clamped(model: VideoChat2, value: float) -> float:
    with torch.no_grad():
        model.heads.temperature.fill_(value)
    return float(model.temperature.detach())


def _matches(recording: Recording, group: str) -> Tensor:
    ids = recording.input(f"{group}_ids")
    return ids[:, None] == ids[None]


def _contrast(video: Tensor, text: Tensor, temperature: Tensor, matches: Tensor) -> Tensor:
    similarity = query_similarity(video, text) / temperature
    both = [losses.contrastive(s, matches).mean() for s in (similarity, similarity.T)]
    return torch.stack(both).mean()


def _contrasts(
    recording: Recording, pair: tuple[Tensor, Tensor], group: str
) -> Iterator[Comparison]:
    matches = _matches(recording, group)
    targets = matches.double() / matches.sum(dim=1, keepdim=True)
    yield recording.compare(f"out64/vtc/{group}_targets", targets)
    for aggregate in ("mean", "max"):
        for value in ("0.07", "0.3"):
            name = f"out64/vtc/{group}_{aggregate}_temp{value}"
            video, text = (side.clone().requires_grad_() for side in pair)
            temperature = torch.tensor(float(value), dtype=torch.float64, requires_grad=True)
            unit = functional.normalize(video, dim=-1), functional.normalize(text, dim=-1)
            similarity = query_similarity(*unit, aggregate) / temperature  # type: ignore[arg-type]
            both = [losses.contrastive(s, matches).mean() for s in (similarity, similarity.T)]
            loss = torch.stack(both).mean()
            loss.backward()
            found = {"loss": loss, "sim_v2t": similarity, "grad_vision_proj": video.grad}
            found |= {"grad_text_proj": text.grad, "grad_temp": temperature.grad}
            for key, tensor in found.items():
                assert tensor is not None
                yield recording.compare(f"{name}/{key}", tensor, 1e-8)


def _weights(
    recording: Recording, model: VideoChat2, pair: tuple[Tensor, Tensor], group: str
) -> Iterator[Comparison]:
    matches = _matches(recording, group)
    for aggregate in ("mean", "max"):
        similarity = query_similarity(*pair, aggregate) / model.temperature.detach()  # type: ignore[arg-type]
        for name, logits in (("v2t", similarity), ("t2v", similarity.T)):
            found = negative_weights(logits, matches)
            yield recording.compare(f"out64/vtm/{group}_{aggregate}_weights_{name}", found)


def _matchings(
    recording: Recording, model: VideoChat2, tokens: Tensor, case: tuple[str, str]
) -> Iterator[Comparison]:
    name = "out64/vtm/" + "_".join(case)
    loss, pooled, logits = _matching(recording, model, tokens, case[0])
    yield recording.compare(f"{name}/pooled", pooled)
    yield recording.compare(f"{name}/logits", logits)
    yield recording.compare(f"{name}/loss", loss)


def _matching(
    recording: Recording, model: VideoChat2, tokens: Tensor, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = recording.input("text_ids"), recording.input("text_mask")
    media, texts, labels = paired_rows(
        recording.input(f"{group}_neg_vision_for_text"),
        recording.input(f"{group}_neg_text_for_vision"),
    )
    rows = tokens[media], ids[texts], mask[texts]
    logits = model.match_logits(*rows)
    pooled = model.heads.pooled(*model.qformer.join(*rows))
    return losses.cross_entropy(logits, labels).mean(), pooled, logits


def _total(recording: Recording, model: VideoChat2, tokens: Tensor) -> Iterator[Comparison]:
    """The sum of the three losses, in one pass for the queries, with its gradients."""
    mask = recording.input("text_mask")
    model.zero_grad()
    queries, states = model.qformer.write(tokens, recording.input("vtg_ids"), mask)
    logits = model.qformer.word_logits(states)
    there = mask.bool()
    expected = recording["out64/vtg/logits"][there.numpy()]
    yield compare(recording.file, "vtg/logits", logits[there], expected, DOUBLE)
    labels = recording.input("vtg_labels").flatten()
    both = [
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels, label_smoothing=smoothing)
        for smoothing in (SMOOTHING, 0.0)
    ]
    yield recording.compare("out64/vtg/loss", both[0])
    yield recording.compare("out64/vtg/loss_no_smoothing", both[1])
    words = model.qformer.read(recording.input("text_ids"), mask)
    video, text = model.encode_video(queries), model.encode_text(words)
    contrast = _contrast(video, text, model.temperature, _matches(recording, "repeat"))
    matching, _, _ = _matching(recording, model, tokens, "repeat")
    (contrast + matching + both[0]).backward()
    for name, loss in (("vtc", contrast), ("vtm", matching), ("cap", both[0])):
        yield recording.compare(f"out64/total/loss_{name}", loss)
    yield from _gradients(recording, model)


def _gradients(recording: Recording, model: VideoChat2) -> Iterator[Comparison]:
    names = [name.removeprefix("grad/") for name in recording.names("grad/")]
    given = {n: torch.from_numpy(recording[f"grad/{n}"]) for n in names}
    expected = {f"qformer.{name}": tensor for name, tensor in published(given).items()}
    expected |= _renamed(given, {"vision_proj.": "heads.vision.", "text_proj.": "heads.text."})
    expected |= _renamed(given, {"itm_head.": "heads.matching.", "temp": "heads.temperature"})
    expected |= _renamed(given, {"vision_layernorm.": "norm.", "vision_temp_embed": "frame_places"})
    own = dict(model.named_parameters())
    for name, tensor in expected.items():
        found = own[name].grad
        assert found is not None, name
        bound = GRADIENTS * max(1.0, float(tensor.abs().max()))
        yield compare(recording.file, f"grad/{name}", found, tensor.numpy(), bound)


def stage3(recording: Recording) -> Iterator[Comparison]:
    """From recorded visual tokens to the loss and to greedy words, with adapters."""
    meta, folder = recording.meta, recording.path.parent
    second = Recording(folder / "stage2.npz")
    model: Any = _adapted(recording, second)
    with torch.no_grad():
        for case in ("video", "image", "cut"):
            yield from _instruct(recording, model, case)
        yield from _without_adapters(recording, model)
        yield from _inference(recording, model)
    recording.state()
    for name in recording.names():
        if _is_of_vision(name):
            recording.ignore(name, NEEDS_VISION)
        elif name.endswith("_loss_reference_bos"):
            recording.ignore(name, "the reference has a number in place of BOS")
    limits = recording.names("out/instruction_ids_max")
    tokenizer = tokenizer_of(folder, "qformer", side="left")
    for name in limits:
        found = tokenizer(meta["truncation_instruction"], truncation=True,
                          max_length=int(name.rpartition("max")[2])).input_ids  # fmt: skip
        yield recording.compare(name, torch.tensor(found), EXACT)


def _is_of_vision(name: str) -> bool:
    whole = ("in/video", "in/image", "out64/not_video_visual_left_padded")
    starts = ("out64/video_visual_", "in/video_qformer", "in/image_qformer", "out64/cut_visual")
    return name in whole or name.startswith(starts)


def _adapted(recording: Recording, second: Recording) -> Any:
    meta = recording.meta
    own = {
        name.removeprefix("llama_model."): tensor
        for name, tensor in second.state().items()
        if name.startswith("llama_model.")
    }
    lora = meta["lora"]
    targets = tuple(lora["target_modules"])
    config = AdapterConfig(rank=lora["r"], alpha=lora["alpha"], targets=targets)
    model = adapt(language_of(meta["llm"], own), config).double().eval()
    state = {
        name.removeprefix("llama_model."): tensor
        for name, tensor in recording.state().items()
        if "lora_" in name
    }
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    return model


def _given(recording: Recording, model: Any, case: str) -> Any:
    """Return what the language model is given: padding is -1, and labels say what is learned."""
    before, after = (recording.input(f"{case}_{part}_ids") for part in ("before", "after"))
    visual = torch.from_numpy(recording[f"out64/{case}_visual"])
    expected = torch.from_numpy(recording[f"out/{case}_labels"])
    targets = torch.zeros_like(after, dtype=torch.bool)
    cut = after.clone()
    for row, (front, back) in enumerate(
        zip((before >= 0).sum(1), (after >= 0).sum(1), strict=True)
    ):
        start = 1 + int(front) + visual.shape[1]
        kept = min(int(back), expected.shape[1] - start)
        targets[row, :kept] = expected[row, start : start + kept] != IGNORED
        cut[row, kept:] = -1  # the reference cuts the sequence, wherever that is
    words = model.get_input_embeddings()
    texts = Text(before, before >= 0), Text(cut, cut >= 0, targets)
    return assemble(words, recording.meta["llm"]["bos_id"], texts[0], visual, texts[1])


def _instruct(recording: Recording, model: Any, case: str) -> Iterator[Comparison]:
    given = _given(recording, model, case)
    start = 1 + (recording.input(f"{case}_before_ids") >= 0).sum(dim=1)
    yield recording.compare(f"out/{case}_visual_start", start, EXACT)
    yield from sequences(recording, case, given)
    logits, words = target_logits(model, given)
    if f"out64/{case}_target_logits" in recording:
        yield recording.compare(f"out64/{case}_target_logits", logits, LOGITS)
    yield recording.compare(f"out64/{case}_loss", functional.cross_entropy(logits, words), LOSSES)


def _without_adapters(recording: Recording, model: Any) -> Iterator[Comparison]:
    given = _given(recording, model, "video")
    with model.disable_adapter():
        loss = functional.cross_entropy(*target_logits(model, given))
        logits = model(inputs_embeds=given.embeddings, attention_mask=given.mask.long()).logits
    yield recording.compare("out64/video_loss_without_lora", loss, LOSSES)
    # The reference takes the last place of the padded sequence, whatever is there.
    last = given.mask.sum(dim=1) - 1
    rows = torch.arange(len(last))
    expected = recording["out64/video_last_logits_without_lora"]
    yield compare(recording.file, "last_logits_without_lora", logits[rows, last], expected, LOGITS)


def _inference(recording: Recording, model: Any) -> Iterator[Comparison]:
    sample = int(recording["in/inference_sample"])
    before, after = (recording.input(f"inference_{part}_ids") for part in ("before", "after"))
    visual = torch.from_numpy(recording["out64/video_visual"])[[sample]]
    front, back = before[None, 1:], after[None]  # BOS is put in front by `assemble`
    texts = [Text(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in (front, back)]
    given = assemble(model.get_input_embeddings(), int(before[0]), texts[0], visual, texts[1])
    logits = model(inputs_embeds=given.embeddings, attention_mask=given.mask.long()).logits[0, -1]
    yield recording.compare("out64/inference_first_logits", logits, LOGITS)
    expected = recording["out/inference_greedy_ids"]
    tokenizer = tokenizer_of(recording.path.parent, "llm")
    config = WritingConfig(max_tokens=len(expected), stop=())
    (found,) = write_answers(model, tokenizer, given, config)
    for name in ("out/inference_greedy_ids", "out/inference_generate_ids"):
        ids = recording[name].tolist()
        ids = ids[: ids.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in ids else ids
        equal = found == tokenizer.decode(ids).strip()
        yield Comparison(recording.file, f"{name}, as text", float(not equal), EXACT)
