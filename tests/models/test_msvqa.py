"""MSVQA: sizes, grouping by video, memory settings, learning."""

import pytest
import torch
from torch import nn

from benchmarks.rows.counting import operators
from msvqa.errors import RecipeError
from msvqa.evaluators.reconstruction import Reconstruction as Evaluator
from msvqa.models.model import Sizes
from msvqa.models.msvqa import MSVQA
from msvqa.models.parts import parameters_of
from msvqa.objectives.answering import Answering
from msvqa.objectives.reconstruction import Reconstruction
from msvqa.recipe import EvaluationConfig
from tests.models.small import (
    expand,
    gradients,
    largest_difference,
    make_batch,
    make_msvqa,
    make_sizes,
    trainable,
)

NO_DROPOUT = {"dropout": 0.0, "state_dropout": 0.0}
FROZEN = {
    part: {**settings, "batch_norm": "frozen"}
    for part, settings in {
        "appearance": {"depth": 10, "base_width": 4, "stem": "small", "scale": "unit"},
        "motion": {"depth": 14, "base_width": 4, "groups": 2, "stem": "small", "scale": "unit"},
    }.items()
}
DECODER = {
    "layer2": 16, "layer3": 16, "layer4": 16, "inner_dim": 16, "grid_px": 8, "dropout": 0.0,
}  # fmt: skip

EVALUATOR = Evaluator(EvaluationConfig())


def answering(**changes):
    return trainable(Answering(Answering.Config(), make_msvqa(**NO_DROPOUT, **changes)))


def reconstruction(**changes):
    model = make_msvqa(**NO_DROPOUT, decoder=DECODER, **changes)
    return trainable(Reconstruction(Reconstruction.Config(), model))


OBJECTIVES = pytest.mark.parametrize("make", [answering, reconstruction])


@pytest.mark.long
@pytest.mark.parametrize(
    ("layers", "total"),
    [
        ((512, 256, 512), 194_743_772),
        ((512, 1024, 512), 196_318_172),
        ((256, 512, 256), 194_087_900),
    ],
)
def test_published_sizes_have_the_published_parameter_count(layers, total):
    names = ("layer2", "layer3", "layer4")
    config = MSVQA.Config.model_validate({"decoder": dict(zip(names, layers, strict=True))})
    sizes = Sizes(
        vocabulary=4809, answers=1854, num_clips=8, frames_per_clip=16, size_px=100, word_size=300
    )
    with torch.device("meta"):
        model = MSVQA(config, sizes)
    assert sum(p.numel() for p in model.parameters()) == total
    assert sum(p.numel() for p in model.network.parameters()) == 24_087_004


def test_parts_hold_every_parameter_once():
    model = make_msvqa()
    groups = parameters_of(model.parts())
    assert list(groups) == ["backbone", "decoder", "rest"]
    assert {id(p) for p in groups["rest"]} == {id(p) for p in model.network.parameters()}
    ids = [id(p) for members in groups.values() for p in members]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}


def test_shapes():
    model, batch = make_msvqa(), make_batch()
    assert [x.shape for x in model.encode_video(batch)] == [(4, 3, 16)] * 2
    reasoned = model.answer(batch)
    assert reasoned.logits.shape == (8, 11)
    assert [x.shape for x in reasoned.common_motion] == [(8, 3, 16)]
    assert [x.shape for x in model.reconstruct(batch)] == [(8, 3, 4, 3, 16, 16)] * 2


def test_appearance_of_every_second_frame_ignores_the_others():
    batch = make_batch()
    other = {**batch, "clips": batch["clips"].clone()}
    other["clips"][:, :, 1::2] = 0
    for every, is_equal in ((1, False), (2, True)):
        model = make_msvqa(appearance_every=every).eval()
        (first, motion), (second, still) = model.encode_video(batch), model.encode_video(other)
        assert torch.equal(first, second) == is_equal
        assert not torch.equal(motion, still)


@OBJECTIVES
def test_gradients_reach_every_trainable_parameter(make):
    objective = make()
    found = gradients(objective, make_batch())
    assert set(found) == {n for n, p in objective.named_parameters() if p.requires_grad}
    # The offset of a softmax cancels.
    offsets = (".score.bias", ".pair_bias")
    still = [n for n, g in found.items() if not g.any() and not n.endswith(offsets)]
    assert still == []


@pytest.mark.long
@OBJECTIVES
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_once_per_video_equals_once_per_question(make, batch_norm):
    encoders = {k: {**v, "batch_norm": batch_norm} for k, v in FROZEN.items()}
    objective, batch = make(**encoders).double(), make_batch(videos=3, per_video=3)
    assert (
        largest_difference(gradients(objective, batch), gradients(objective, expand(batch))) <= 1e-9
    )


def test_once_per_video_with_unequal_numbers_of_questions_and_frozen_statistics():
    objective, batch = answering(**FROZEN).double(), make_batch(videos=3, per_video=2)
    batch["video_index"] = torch.tensor([0, 1, 1, 1, 2, 2])
    assert (
        largest_difference(gradients(objective, batch), gradients(objective, expand(batch))) <= 1e-9
    )


def test_pieces_of_the_batch_equal_the_whole_with_frozen_statistics():
    batch = make_batch()
    whole = answering(**FROZEN).double()
    pieces = answering(**FROZEN, encoder_chunk=5, checkpoint_activations=True).double()
    assert largest_difference(gradients(whole, batch), gradients(pieces, batch)) <= 1e-11


def test_repeating_the_forward_pass_changes_neither_gradients_nor_statistics():
    batch = make_batch()
    plain, repeated = (
        answering(encoder_chunk=6, checkpoint_activations=repeat).double()
        for repeat in (False, True)
    )
    assert largest_difference(gradients(plain, batch), gradients(repeated, batch)) <= 1e-11
    states = [dict(objective.model.named_buffers()) for objective in (plain, repeated)]
    assert largest_difference(*states) <= 1e-11
    assert any(int(v) == 2 for n, v in states[1].items() if "num_batches" in n)


def test_checkpointing_needs_pieces():
    with pytest.raises(ValueError, match="encoder_chunk"):
        make_msvqa(checkpoint_activations=True)


def test_order_of_clips_does_not_change_the_answer():
    model, batch = make_msvqa(**FROZEN).double().eval(), make_batch()
    order = torch.tensor([2, 0, 1])
    found, expected = model.answer(batch | {"clips": batch["clips"][:, order]}), model.answer(batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found.common_motion[0], expected.common_motion[0][:, order], rtol=0, atol=1e-12
    )


def test_one_question_alone_gets_the_same_logits():
    model, batch = make_msvqa().double().eval(), make_batch()
    one = {k: v[3:4] for k, v in batch.items() if v.ndim and len(v) == 8}
    one |= {"clips": batch["clips"][1:2], "video_index": torch.tensor([0])}
    found, expected = model.answer(one).logits[0], model.answer(batch).logits[3]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.long
def test_learns_eight_examples():
    objective, batch = answering(), make_batch()
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    best = objective.eval().predict(batch)["top"][:, 0]
    assert torch.equal(best, batch["answer"])


@pytest.mark.long
def test_learns_to_reconstruct_a_few_clips():
    objective, batch = reconstruction(), make_batch(videos=2)
    # Smooth images; noise could only be learned by heart.
    colors = torch.randint(0, 256, (2, 3, 1, 2, 2, 3), dtype=torch.uint8)
    clips = colors.repeat_interleave(8, 3).repeat_interleave(8, 4)
    batch["clips"] = clips.expand_as(batch["clips"]).contiguous()
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        rows = {k: v.numpy() for k, v in objective.predict(batch).items()}
    found = EVALUATOR.validate(rows, None)
    assert found["r2_appearance"] > 0.4
    assert found["r2_motion"] > 0.4


def test_saved_weights_give_the_same_answers(tmp_path):
    model, batch = make_msvqa().eval(), make_batch()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    torch.manual_seed(1)
    other = make_msvqa()
    nn.init.zeros_(other.network.answer.output.weight)
    other.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    assert torch.equal(other.eval().answer(batch).logits, model.answer(batch).logits)


def test_bfloat16_stays_near_full_precision():
    objective, batch = answering(), make_batch()
    expected = float(objective(batch)["loss"].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = objective(batch)
    parts["loss"].backward()
    assert abs(float(parts["loss"].detach()) - expected) < 0.1 * expected
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)


@pytest.mark.long
@OBJECTIVES
def test_no_operator_per_question_and_no_wait_for_the_device(make):
    objective = make()
    batches = [make_batch(per_video=k) for k in (2, 5)]
    few, many = (operators(lambda b=batch: objective(b)["loss"].backward()) for batch in batches)
    assert len(few) == len(many)
    waiting = ("_local_scalar_dense", "nonzero", "equal")
    assert [name for name in many if any(word in name.split(".") for word in waiting)] == []


def test_word_vectors_start_the_embedding():
    model = make_msvqa()
    vectors = torch.randn(20, 8).numpy()
    model.load_word_vectors(vectors)
    assert (model.network.question.embedding.weight.detach().numpy() == vectors).all()
    with pytest.raises(Exception, match=r"\(20, 9\).*\(20, 8\)"):
        model.load_word_vectors(torch.randn(20, 9).numpy())


@pytest.mark.parametrize("fields", [{"hidden_size": 18, "heads": 4}])
def test_impossible_sizes_are_refused(fields):
    with pytest.raises(ValueError, match="multiple of heads"):
        make_msvqa(**fields)


def test_a_single_clip_needs_self_loops():
    config = MSVQA.Config.model_validate({"self_loops": False})
    with pytest.raises(RecipeError, match="2 or more"), torch.device("meta"):
        MSVQA(config, make_sizes(num_clips=1))
