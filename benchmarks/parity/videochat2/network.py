"""The Q-Former alone, adapters, and the stages as far as they take visual tokens as inputs."""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.parity.recording import DOUBLE, EXACT, Comparison, Recording, compare
from msvqa.models.layers.adapters import AdapterConfig, adapt
from msvqa.models.layers.language_input import (
    IGNORED,
    LanguageInput,
    Text,
    assemble,
    target_logits,
)
from msvqa.models.layers.qformer import QFormer, QFormerConfig, published
from msvqa.models.weights import load_strictly

LOGITS, LOSSES = 5e-5, 5e-6
"""The language model takes softmax and norms in single precision whatever its weights are."""
SMOOTHING = 0.1


def qformer_of(recording: Recording, extra: bool) -> QFormer:
    """Return the recorded Q-Former in double precision, not training."""
    meta, state = recording.meta, recording.state()
    own = published(state)
    if not extra:
        own.pop("extra_queries", None)
    queries = own["queries"].shape[1]
    config = QFormerConfig(
        width=meta["hidden"], layers=meta["layers"], heads=meta["heads"],
        feed_forward=meta["intermediate"], words=meta["vocab"], max_words=meta["max_positions"],
        queries=queries, extra_queries=own["extra_queries"].shape[1] if extra else 0,
    )  # fmt: skip
    module = QFormer(config, meta["vision_width"]).double().eval()
    load_strictly(module, own, recording.file)
    return module


def qformer(recording: Recording) -> Iterator[Comparison]:
    """Queries, texts, both together, one-pass writing, and the gradients of zero queries."""
    plain, more = qformer_of(recording, False), qformer_of(recording, True)
    vision, ids, mask = (recording.input(n) for n in ("vision", "text_ids", "text_mask"))
    left = recording.input("text_ids_left"), recording.input("text_mask_left")
    with torch.no_grad():
        yield from _query_pass(recording, plain, vision)
        yield recording.compare("out64/query_only_extra", more.look(vision))
        yield _shown(recording, "text_only", plain.read(ids, mask), mask)
        yield _shown(recording, "joint", torch.cat(plain.join(vision, ids, mask), 1), mask)
        yield _shown(recording, "joint_extra", torch.cat(more.join(vision, ids, mask), 1), mask)
        found = torch.cat(more.join(vision, *left), 1)
        yield _shown(recording, "joint_extra_left", found, left[1])
        yield from _written(recording, plain, vision, mask)
    for name, value in (("zeros", None), ("normal", recording.input("extra_normal"))):
        yield from _gradients(recording, more, vision, (name, value))


def _query_pass(recording: Recording, module: QFormer, vision: Tensor) -> Iterator[Comparison]:
    seen: dict[str, list[Tensor]] = {"keys": [], "values": []}
    handles = []
    for layer in module.layers.encoder.layer:
        attention = layer.attention.attention
        for name, part in (("keys", attention.key), ("values", attention.value)):
            handles.append(
                part.register_forward_hook(lambda _, __, out, n=name: seen[n].append(out))
            )
    found = module.layers(
        module.queries.expand(len(vision), -1, -1), query_length=module.queries.shape[1],
        encoder_hidden_states=vision, output_hidden_states=True,
    )  # fmt: skip
    for handle in handles:
        handle.remove()
    yield recording.compare("out64/query_only", module.look(vision))
    yield recording.compare("out64/query_only_hidden", torch.stack(found.hidden_states))
    for name, values in seen.items():
        split = torch.stack(values).unflatten(-1, (recording.meta["heads"], -1)).transpose(2, 3)
        yield recording.compare(f"out64/query_only_{name}", split)


def _shown(recording: Recording, name: str, found: Tensor, mask: Tensor) -> Comparison:
    """Compare where the mask is 1; what stands before the text counts whole."""
    expected = recording[f"out64/{name}"]
    there = functional.pad(mask.bool(), (found.shape[1] - mask.shape[1], 0), value=True)
    return compare(recording.file, name, found[there], expected[there.numpy()], DOUBLE)


def _written(
    recording: Recording, module: QFormer, vision: Tensor, mask: Tensor
) -> Iterator[Comparison]:
    ids = recording.input("vtg_ids")
    _, states = module.write(vision, ids, mask)
    logits = module.word_logits(states)
    yield _shown(recording, "vtg_text", states, mask)
    yield _shown(recording, "vtg_logits", logits, mask)
    labels = ids.masked_fill(mask == 0, IGNORED)[:, 1:]
    loss = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels.flatten(), label_smoothing=SMOOTHING
    )
    yield recording.compare("out64/vtg_loss", loss)


def _gradients(
    recording: Recording, module: QFormer, vision: Tensor, extra: tuple[str, Tensor | None]
) -> Iterator[Comparison]:
    name, value = extra
    assert module.extra_queries is not None
    with torch.no_grad():
        module.extra_queries.copy_(torch.zeros(()) if value is None else value)
    module.zero_grad()
    found = module.look(vision)
    if value is None:
        yield recording.compare("out64/query_only_extra_zeros", found)
    (found * recording.input("grad_projection")).sum().backward()
    assert module.queries.grad is not None
    assert module.extra_queries.grad is not None
    norms = torch.stack([module.queries.grad.norm(), module.extra_queries.grad.norm()])
    expected = recording[f"out64/extra_{name}_grad_norms"]
    quantity = f"extra_{name}_grad_norms, relative"
    ones = torch.ones(2, dtype=torch.float64)
    yield compare(recording.file, quantity, norms / torch.from_numpy(expected), ones.numpy(), 1e-6)


def language_of(meta: dict[str, Any], state: dict[str, Tensor]) -> LlamaForCausalLM:
    """Return a recorded language model in double precision, not training."""
    config = LlamaConfig(
        vocab_size=meta["vocab"], hidden_size=meta["hidden"], num_hidden_layers=meta["layers"],
        num_attention_heads=meta["heads"], intermediate_size=meta["intermediate"],
        rms_norm_eps=meta["rms_norm_eps"], tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": meta["rope_theta"]},
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    load_strictly(model, state, "the recorded language model")
    return model


def lora(recording: Recording) -> Iterator[Comparison]:
    """Logits without and with adapters, from the arrays and from folders in PEFT's format."""
    ids, mask = recording.input("ids"), recording.input("mask")
    labels = recording.input("labels")
    state = recording.state()
    for name, targets in {"base": None, **recording.meta["targets"]}.items():
        model: Any = language_of(recording.meta, state)
        if targets is not None:
            config = AdapterConfig(
                rank=recording.meta["r"], alpha=recording.meta["alpha"], targets=tuple(targets)
            )
            adapter = recording.state(f"adapter_{name}")
            yield from _from_folder(recording, name, (ids, mask))
            model = adapt(model, config).double().eval()
            own = {k.replace(".weight", ".default.weight"): v for k, v in adapter.items()}
            wrong = model.load_state_dict(own, strict=False).unexpected_keys
            yield Comparison(recording.file, f"{name}: unknown names", float(len(wrong)), EXACT)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits
            there = mask.bool()
            expected = recording[f"out64/{name}_logits"][there.numpy()]
            yield compare(recording.file, f"{name}_logits", logits[there], expected, LOGITS)
            given = LanguageInput(model.get_input_embeddings()(ids), there, labels)
            chosen, answers = target_logits(model, given)
            loss = functional.cross_entropy(chosen, answers)
            yield recording.compare(f"out64/{name}_loss", loss, LOSSES)


def _from_folder(
    recording: Recording, name: str, given: tuple[Tensor, Tensor]
) -> Iterator[Comparison]:
    folder = recording.path.parent / f"lora_{name}"
    model = PeftModel.from_pretrained(language_of(recording.meta, recording.state()), str(folder))
    with torch.no_grad():
        logits = model.double().eval()(input_ids=given[0], attention_mask=given[1]).logits
    there = given[1].bool()
    expected = recording[f"out64/{name}_logits"][there.numpy()]
    yield compare(recording.file, f"{folder.name}/logits", logits[there], expected, LOGITS)


NEEDS_VISION = "visual tokens are inputs here: what makes them is compared with `vision`"


def stage2(recording: Recording) -> Iterator[Comparison]:
    """From recorded visual tokens to the loss, in both forms."""
    state = recording.state()
    own = {k.removeprefix("llama_model."): v for k, v in state.items() if "llama_model." in k}
    model = language_of(recording.meta["llm"], own)
    bos = recording.meta["llm"]["bos_id"]
    with torch.no_grad():
        for case in ("vicuna_video", "vicuna_image", "mistral_video"):
            yield from _connect(recording, model, bos, case)
    for name in recording.names():
        if name.startswith("in/") and name.count("_") == 0:
            recording.ignore(name, NEEDS_VISION)
    for name in ("out/mistral_video_labels_reference", "out64/mistral_video_loss_reference"):
        recording.ignore(name, "the reference leaves out the end symbol, whose id is its padding's")


def _connect(
    recording: Recording, model: LlamaForCausalLM, bos: int, case: str
) -> Iterator[Comparison]:
    ids, there = (recording.input(f"{case}_caption_{part}") for part in ("ids", "mask"))
    count = len(ids)
    prompts = [
        recording.input(f"{case}_{part}_ids").expand(count, -1) for part in ("before", "after")
    ]
    before, prompt = (Text(p, torch.ones_like(p, dtype=torch.bool)) for p in prompts)
    targets = torch.cat([torch.zeros_like(prompt.ids), there], dim=1).bool()
    after = Text(
        torch.cat([prompt.ids, ids], 1), torch.cat([prompt.mask, there.bool()], 1), targets
    )
    name = f"out64/{case}_visual"
    # The visual tokens of a video do not depend on the form of the text.
    visual = recording[name if name in recording else "out64/vicuna_video_visual"]
    given = assemble(model.get_input_embeddings(), bos, before, torch.from_numpy(visual), after)
    start = torch.tensor(1 + before.ids.shape[1])
    yield recording.compare(f"out/{case}_visual_start", start, EXACT)
    yield from sequences(recording, case, given)
    logits, answers = target_logits(model, given)
    yield recording.compare(f"out64/{case}_loss", functional.cross_entropy(logits, answers), LOSSES)
    if f"out64/{case}_logits" in recording:
        every = model(inputs_embeds=given.embeddings, attention_mask=given.mask.long()).logits
        expected = recording[f"out64/{case}_logits"][:, : every.shape[1]][given.mask.numpy()]
        yield compare(recording.file, f"{case}_logits", every[given.mask], expected, LOGITS)


def sequences(recording: Recording, case: str, given: LanguageInput) -> Iterator[Comparison]:
    """Masks, labels and embeddings; recorded ones may have places that no row needs."""
    missing = recording[f"out/{case}_attention_mask"].shape[1] - given.mask.shape[1]
    mask = functional.pad(given.mask.long(), (0, missing))
    labels = functional.pad(given.labels, (0, missing), value=IGNORED)
    yield recording.compare(f"out/{case}_attention_mask", mask, EXACT)
    yield recording.compare(f"out/{case}_labels", labels, EXACT)
    if f"out64/{case}_inputs_embeds" in recording:
        expected = recording[f"out64/{case}_inputs_embeds"][mask.bool().numpy()]
        found = given.embeddings[given.mask]
        yield compare(recording.file, f"{case}_inputs_embeds", found, expected, 1e-6)
