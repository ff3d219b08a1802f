"""Losses with their gradients, and the learning rates of all phases."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.parity.recording import EXACT, Comparison, Recording, compare
from benchmarks.parity.similarity.tolerance import gradients, leaf, listed, results, tensor
from msvqa import losses
from msvqa.data.sampling import evenly
from msvqa.engine.optim import Moment, set_lr
from msvqa.losses import ASYMMETRIES, Asymmetry
from msvqa.metrics import scaled_ranks
from msvqa.models.layers.described import Described, Experts
from msvqa.models.model import Sizes
from msvqa.models.uniter import Uniter
from msvqa.objectives.similarity import Similarity
from msvqa.objectives.tagging import TEMPERATURE, Tagging
from msvqa.recipe import StageConfig

# Legend: B examples, P pairs, E embedding width, L tags.

PRESETS = {"seed": "reference", "paper": "paper", "official_default": "official_default"}
"""Recorded settings of the asymmetric loss that are ours by name; others are given by numbers."""
OF_PEAK = 1e-6
"""Tolerance of a learning rate, as a part of the highest."""


def asl(recording: Recording) -> Iterator[Comparison]:
    """The asymmetric loss of every recorded setting, and that of saturated logits stays finite."""
    targets = tensor(recording, "targets")
    for name in (name.removeprefix("cfg_") for name in recording.names("cfg_")):
        numbers = recording[f"cfg_{name}"].tolist()
        asymmetry = ASYMMETRIES[PRESETS[name]] if name in PRESETS else Asymmetry(*numbers)
        given = (asymmetry.positive, asymmetry.negative, asymmetry.margin, asymmetry.smallest)
        yield compare(recording.file, f"cfg_{name}", np.array(given), np.array(numbers), EXACT)
        logits = leaf(recording, "logits")
        loss = losses.asymmetric(logits, targets, asymmetry)
        loss.sum().backward()
        for twin in ("", "_f64"):
            if f"loss_{name}{twin}" in recording:
                yield from results(recording, {f"loss_{name}{twin}": loss})
                yield from gradients(recording, {f"grad_{name}{twin}": logits.grad})
    logits = leaf(recording, "sat_logits")
    loss = losses.asymmetric(logits, tensor(recording, "sat_targets"), ASYMMETRIES["reference"])
    loss.sum().backward()
    yield from results(recording, {"sat_loss_seed": loss})
    yield from gradients(recording, {"sat_grad_seed": logits.grad})


def contrastive(recording: Recording) -> Iterator[Comparison]:
    """The contrast of frames and titles; that of two workers is in the tests of the objective."""
    vision, text = leaf(recording, "vision"), leaf(recording, "text")
    rows = torch.arange(len(text))
    view = Experts(logits=torch.zeros(1, len(text), 1), vision=vision[None], text=text)
    batch = {"video": rows, "video_index": rows}
    loss = _tagging().contrasted(view, batch)
    loss.sum().backward()
    yield recording.compare_single("temperature", torch.tensor(TEMPERATURE))
    yield from results(recording, {"loss_per_sample": loss, "loss_mean": loss.mean()})
    slopes = {"grad_vision_of_sum": vision.grad, "grad_text_of_sum": text.grad}
    yield from gradients(recording, slopes)
    recording.ignore("world_size", "for a test with as many processes")


def finetune(recording: Recording) -> Iterator[Comparison]:
    """The losses of pairs, with either loss of tags."""
    for name in ("bce", "asl"):
        yield from _finetune(recording, name)
    recording.ignore("kl_eps", "it shows where a cosine is negative, and cannot be set")


def _finetune(recording: Recording, name: str) -> Iterator[Comparison]:
    given = {
        "emb1": leaf(recording, "emb1"), "emb2": leaf(recording, "emb2"),
        "logit1": leaf(recording, "tag_logits1"), "logit2": leaf(recording, "tag_logits2"),
    }  # fmt: skip
    pairs = len(recording["label"])
    batch = {
        "similarity": tensor(recording, "label"),
        "weight": torch.ones(pairs),
        "normalizer": torch.tensor(float(pairs)),
        "workers": torch.tensor(1.0),
    }
    tags = [listed(recording[f"tags{side}"]) for side in (1, 2)]
    config = Similarity.Config.model_validate(
        {"tag_loss": name, "divergence": float(recording["kl_weight"])}
    )
    objective = Similarity(config, _model())
    sides = [
        (Described(embedding=given[f"emb{side}"], logits=given[f"logit{side}"]), shown)
        for side, shown in zip((1, 2), tags, strict=True)
    ]
    parts = objective.combined(sides, batch)
    of_tags = torch.cat([objective.tag_losses(d.logits, shown) for d, shown in sides])
    scalar = parts["error"] + config.divergence * parts["divergence"]
    vector = of_tags + scalar
    found = {
        "cosine": objective.cosines(sides[0][0], sides[1][0]),
        "mse_sum": parts["error"],
        "kl": parts["divergence"],
        "loss_tag": of_tags,
        "loss_vector": vector,
        "loss_vector_sum": parts["loss"] * len(vector),
        "loss_vector_mean": parts["loss"],
    }
    yield from results(recording, {f"{name}_{key}": value for key, value in found.items()})
    (parts["loss"] * len(vector)).backward()
    slopes = {f"{name}_grad_{key}_of_sum": value.grad for key, value in given.items()}
    yield from gradients(recording, slopes)


def lr_schedule(recording: Recording) -> Iterator[Comparison]:
    """Learning rates of every phase and part, as the optimizer of a stage gets them."""
    for case in (name.removesuffix("_cfg") for name in recording.names() if name.endswith("_cfg")):
        peak, length, warmup = recording[f"{case}_cfg"].tolist()
        schedule = {"name": "linear", "warmup_steps": int(warmup), "rise": "from_zero",
                    "length_steps": int(length)}  # fmt: skip
        stage = StageConfig.model_validate(
            {"name": "any", "objective": {"name": "tagging"}, "steps": int(length),
             "schedule": schedule}
        )  # fmt: skip
        group = {"params": [torch.zeros(1, requires_grad=True)], "base_lr": peak, "name": "rest"}
        optimizer = torch.optim.Adam([group], lr=peak)
        rates = []
        for step in recording[f"{case}_step"].tolist():
            set_lr(optimizer, stage, Moment(step, 0, total_steps=int(length)))
            rates.append(optimizer.param_groups[0]["lr"])
        yield recording.compare(f"{case}_lr", np.array(rates), OF_PEAK * peak)


def extensions(recording: Recording) -> Iterator[Comparison]:
    """Masked frames, correlation as a loss, ranks as labels, frames spread over the whole video."""
    yield from _masked_frames(recording)
    similarity = leaf(recording, "pearson_softmax_sim")
    loss = losses.pearson(
        similarity,
        tensor(recording, "pearson_softmax_label"),
        float(recording["pearson_softmax_temperature"]),
    )
    loss.backward()
    yield recording.compare("pearson_softmax_loss", loss)
    yield recording.compare("pearson_softmax_grad", similarity.grad)
    yield recording.compare("rank_label_out", scaled_ranks(recording["rank_label_in"]))
    most = int(recording["uniform_sampling_max"])
    found = []
    for length in recording["uniform_sampling_n"].tolist():
        chosen = evenly(length, most)
        found.append(np.pad(chosen, (0, most - len(chosen)), constant_values=-1))
    yield recording.compare("uniform_sampling_idx", np.array(found), EXACT)


def _masked_frames(recording: Recording) -> Iterator[Comparison]:
    predicted, target = leaf(recording, "mfm_pred"), tensor(recording, "mfm_target")
    real = tensor(recording, "mfm_frame_mask") > 0
    chosen = tensor(recording, "mfm_selected")
    loss = losses.which_frame(predicted[chosen], target, real, chosen).mean()
    loss.backward()
    yield from results(recording, {"mfm_loss": loss})
    yield from gradients(recording, {"mfm_grad_pred": predicted.grad})


def _model() -> Uniter:
    text = {"width": 4, "heads": 1, "layers": 1, "vocabulary": 2, "inner_width": 4, "positions": 4}
    return Uniter(Uniter.Config(text=text), Sizes(width=1, frames=1, tags=1))


def _tagging() -> Tagging:
    return Tagging(Tagging.Config(), _model())
