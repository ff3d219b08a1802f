"""Tagging and similarity: what counts, what is negative of what, workers, half precision."""

import pytest
import torch
from torch.nn import functional

from msvqa import losses
from msvqa.errors import RecipeError
from msvqa.objectives.describing import multi_hot, videos_of
from msvqa.objectives.similarity import Similarity
from msvqa.objectives.tagging import Tagging
from tests.engine.gloo import run_in_processes
from tests.models.small import gradients, largest_difference, make_dualvgr, trainable
from tests.models.titled import make_batch, make_model, make_pairs, with_masked_words

MIXED = {"contrastive": 10.0, "mixture": 10.0}


def tagging(name="uniter", model=(), **weights):
    return trainable(Tagging(Tagging.Config(**weights), make_model(name, **dict(model))))


def similarity(name="uniter", model=(), **weights):
    return trainable(Similarity(Similarity.Config(**weights), make_model(name, **dict(model))))


def test_tags_are_listed_and_become_hot_on_the_device():
    hot = multi_hot(torch.tensor([[2, 0, -1], [-1, -1, -1], [1, 1, 3]]), 4)
    assert hot.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1]]


def test_each_example_has_its_medium():
    batch = make_pairs(3)
    second = videos_of(batch, 1)
    assert torch.equal(second["vectors"], batch["vectors"][:, 1])
    assert torch.equal(second["tokens"], batch["tokens"][:, 1])
    shared = make_batch(3) | {"video_index": torch.tensor([2, 0, 2])}
    found = videos_of(shared)
    assert torch.equal(found["num_frames"], shared["num_frames"][[2, 0, 2]])
    assert torch.equal(found["tokens"], shared["tokens"])


@pytest.mark.parametrize("name", ["uniter", "mix_nextvlad"])
def test_the_loss_is_the_weighted_sum_of_its_parts(name):
    weights = MIXED if name == "mix_nextvlad" else {"masked_words": 5.0}
    parts = tagging(name, **weights)(with_masked_words(make_batch()))
    assert set(parts) == {"loss", "tags", *weights}
    total = parts["tags"] + sum(weight * parts[part] for part, weight in weights.items())
    torch.testing.assert_close(parts["loss"], total)
    pairs = similarity(name, divergence=0.5, correlation=2.0)(make_pairs())
    expected = pairs["error"] + 0.5 * pairs["divergence"] + pairs["tags"] + 2 * pairs["correlation"]
    torch.testing.assert_close(pairs["loss"], expected)


def test_masked_words_are_guessed_from_the_masked_title():
    objective = tagging(masked_words=1.0)
    batch = with_masked_words(make_batch())
    plain = {k: v for k, v in batch.items() if k not in ("masked_tokens", "token_labels")}
    assert not torch.equal(objective(batch)["tags"], objective(plain)["tags"])
    # Where there are none, as in validation, titles are whole.
    assert "masked_words" not in objective(plain)
    assert torch.equal(tagging()(batch)["tags"], objective(plain)["tags"])
    none = batch | {"token_labels": torch.full_like(batch["tokens"], -100)}
    found = gradients(objective, none)
    assert objective(none)["masked_words"].item() == 0.0
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_masked_frames_are_told_from_the_others_of_the_batch():
    objective = tagging(model={"predicts_frames": True}, masked_frames=1.0)
    batch = make_batch(32)
    torch.manual_seed(3)
    assert objective(batch)["masked_frames"].item() > 0
    torch.manual_seed(3)
    found = gradients(objective, batch)
    assert found["model.frame_head.0.weight"].any()
    one = batch | {"num_frames": torch.zeros_like(batch["num_frames"])}
    assert objective(one)["masked_frames"].item() == 0.0
    assert "masked_frames" not in objective.eval()(batch)


def test_heads_that_a_stage_does_not_run_get_no_gradient():
    for objective in (tagging(), similarity(tags=1.0)):
        assert not any(p.requires_grad for p in objective.model.head.parameters())
    assert all(p.requires_grad for p in tagging(masked_words=1.0).model.head.parameters())


def test_what_fills_up_a_batch_counts_nothing():
    objective, batch = tagging(masked_words=2.0), with_masked_words(make_batch(5))
    filled = {k: torch.cat([v, v[:1]]) if v.ndim else v for k, v in batch.items()}
    filled["weight"] = torch.tensor([1.0] * 5 + [0.0])
    whole, more = objective(batch), objective(filled)
    assert all(torch.allclose(whole[part], more[part]) for part in whole)
    pairs = make_pairs(4)
    objective = similarity(correlation=1.0)
    light = pairs | {"weight": torch.tensor([1.0, 1, 1, 0]), "normalizer": torch.tensor(3.0)}
    fewer = {k: v[:3] if v.ndim else v for k, v in light.items()}
    first, second = objective(light), objective(fewer)
    assert all(torch.allclose(first[part], second[part]) for part in first)


def test_a_video_that_is_there_twice_is_no_negative_of_itself():
    objective = tagging("mix_nextvlad", **MIXED).eval()
    batch = make_batch(4)
    twice = {k: v[[0, 1, 2, 0]] if v.ndim else v for k, v in batch.items()}
    described = objective.model.describe(
        videos_of(batch | twice | {"video_index": torch.arange(4)})
    )
    rows = {"video_index": torch.arange(4)}
    told = objective.contrasted(described.experts, {"video": torch.tensor([0, 1, 2, 0]), **rows})
    apart = objective.contrasted(described.experts, {"video": torch.arange(4), **rows})
    assert told[1] == apart[1]
    # Rows of one batch are rounded alike only where the processor multiplies them alike.
    assert told[0].item() == pytest.approx(told[3].item(), rel=1e-5)
    # Between two that are the same nothing can be told: log 2 at the least.
    assert float(apart[0].detach()) >= 0.69


@pytest.mark.parametrize("name", ["uniter", "mix_nextvlad"])
@pytest.mark.parametrize("loss", ["bce", "asl"])
def test_losses_stay_finite_and_precise_in_half_precision(name, loss):
    weights = MIXED if name == "mix_nextvlad" else {"masked_words": 1.0}
    objective = tagging(name, tag_loss=loss, **weights)
    batch = with_masked_words(make_batch()) | {"vectors": 100 * make_batch()["vectors"]}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = objective(batch)
    parts["loss"].backward()
    assert all(value.dtype == torch.float32 for value in parts.values())
    grads = [p.grad for p in objective.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in grads)
    pairs = similarity(name, tag_loss=loss)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pairs(make_pairs())["error"].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preset", list(losses.ASYMMETRIES))
def test_saturated_logits_have_finite_gradients(dtype, preset):
    logits = torch.tensor([[-200.0, -90, -17, 0, 17, 25, 90, 200]] * 2, dtype=dtype)
    logits.requires_grad_()
    tags = torch.tensor([[0] * 8, [1] * 8])
    loss = losses.asymmetric(logits, tags, losses.ASYMMETRIES[preset])
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


def test_the_asymmetric_loss_without_asymmetry_is_cross_entropy():
    logits, tags = torch.randn(4, 7), torch.randint(0, 2, (4, 7))
    plain = losses.asymmetric(logits, tags, losses.Asymmetry(0, 0, 0.0, 1e-8))
    torch.testing.assert_close(plain, losses.tag_cross_entropy(logits, tags))


def test_losses_of_pairs_by_hand():
    found = torch.tensor([0.5, -0.2, 1.0], requires_grad=True)
    wanted = torch.tensor([0.25, 0.5, 0.0])
    assert losses.similarity_error(found, wanted).tolist() == pytest.approx([0.0625, 0.49, 1.0])
    divergence = losses.similarity_divergence(found, wanted)
    by_hand = [0.25 * -0.693147, 0.5 * 15.42495, -1.6118e-6]
    assert divergence.tolist() == pytest.approx(by_hand, rel=1e-4)
    divergence.sum().backward()
    assert found.grad[1] == 0, "below the smallest similarity there is no gradient"
    alike = torch.ones(4, requires_grad=True)
    losses.pearson(alike, torch.full((4,), 0.5)).backward()
    assert alike.grad.isfinite().all()


def test_experts_that_agree_are_not_apart():
    mixed = torch.randn(5, 8)
    assert losses.mixture_divergence(mixed, mixed.repeat(3, 1, 1)).abs().max() < 1e-6
    shifted = mixed + torch.arange(8)
    wanted = functional.kl_div(
        (shifted / 2).log_softmax(1), (mixed / 2).softmax(1), reduction="none"
    ).sum(1)
    found = losses.mixture_divergence(mixed, torch.stack([shifted, mixed]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_both_sides_of_a_pair_have_passes_of_their_own():
    objective = similarity("mix_nextvlad")
    norm = objective.model.gate_norm
    objective(make_pairs())
    assert int(norm.num_batches_tracked) == 2


def test_a_zero_embedding_is_like_nothing():
    objective, batch = similarity(), make_pairs(2)
    objective.model.project.weight.data.zero_()
    objective.model.project.bias.data.zero_()
    assert objective.predict(batch)["similarity"].tolist() == [0.0, 0.0]


def test_what_does_not_go_together_is_refused():
    with pytest.raises(RecipeError, match=r"(?s)contrastive: .*no experts.*mixture: .*no experts"):
        tagging(**MIXED)
    with pytest.raises(RecipeError, match="masked_frames: model uniter predicts no frames"):
        tagging(masked_frames=1.0)
    with pytest.raises(RecipeError, match="masked_words: model mix_nextvlad predicts no words"):
        tagging("mix_nextvlad", masked_words=1.0)
    with pytest.raises(RecipeError, match="needs a model of titled videos"):
        Similarity(Similarity.Config(), make_dualvgr())
    assert Tagging.sees_whole_batch
    assert similarity(correlation=1.0).sees_whole_batch
    assert not similarity().sees_whole_batch


def of_worker(batch, rank, workers):
    """Return one worker's part of a batch, as the loader shares it."""
    size = len(batch["weight"]) // workers
    own = slice(rank * size, (rank + 1) * size)
    shared = {key: value[own] if value.ndim else value for key, value in batch.items()}
    if "video_index" in batch:
        shared["video_index"] = torch.arange(size)
    whole = {"normalizer": batch["normalizer"] / workers, "workers": torch.tensor(float(workers))}
    return shared | whole


def step_of_worker(rank, workers):
    """Return the averaged gradients of all objectives on a worker's part of the batch."""
    torch.use_deterministic_algorithms(True)
    found = {}
    masked = with_masked_words(make_batch(8))
    # Workers have different numbers of masked words.
    masked["token_labels"][:3] = -100
    cases = {
        "uniter": (tagging("uniter", masked_words=3.0).double(), masked),
        "mix": (tagging("mix_nextvlad", **MIXED).eval().double(), make_batch(8)),
        "pairs": (similarity("uniter", correlation=1.0).double(), make_pairs(8)),
    }
    for name, (objective, batch) in cases.items():
        batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
        own = of_worker(batch, rank, workers) if workers > 1 else batch
        for parameter, gradient in gradients(objective, own).items():
            if workers > 1:
                torch.distributed.all_reduce(gradient)
            found[f"{name}/{parameter}"] = gradient / workers
    return found


@pytest.mark.slow
def test_two_workers_have_the_gradients_of_one(tmp_path):
    expected = step_of_worker(0, 1)
    for share in run_in_processes(2, step_of_worker, tmp_path, 2):
        assert largest_difference(share, expected) < 1e-10
