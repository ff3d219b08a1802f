"""Alignment of a model that fuses clips and texts: every loss, small and odd batches."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from msvqa import losses
from msvqa.collectives import gather, own_rows
from msvqa.errors import RecipeError
from msvqa.models.layers.text_transformer import WordIds
from msvqa.models.model import Sizes
from msvqa.objectives.alignment import Alignment
from msvqa.objectives.hidden_words import hide_words
from msvqa.objectives.negatives import draw_negatives, negative_weights
from tests.engine.gloo import run_in_processes
from tests.models.small import make_dualvgr
from tests.models.small_umt import PIECES, SMALL, VOCABULARY, make_batch, make_umt

ALL = {"matching": 1.0, "words": 1.0, "distillation": 1.0, "mask": {"kind": "attention"}}


def alignment(absent=(), model=None, **config):
    umt = make_umt(absent, **(model or {}))
    objective = Alignment(Alignment.Config.model_validate(config), umt)
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train()


def test_every_loss_is_there_and_reaches_every_trained_weight():
    objective = alignment(**ALL)
    parts = objective(make_batch())
    parts["loss"].backward()
    named = ("text_to_video", "video_to_text", "matching", "words", "imitation_l2")
    assert all(float(parts[name].detach()) > 0 for name in named)
    contrast = (parts["text_to_video"] + parts["video_to_text"]) / 2
    total = contrast + parts["matching"] + parts["words"] + parts["imitation_l2"]
    torch.testing.assert_close(parts["loss"], total)
    missed = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not missed


@pytest.mark.parametrize(
    ("config", "idle"),
    [({}, {"teacher", "heads", "fusion"}), ({"matching": 1.0}, {"teacher", "heads"})],
)
def test_what_a_loss_does_not_use_gets_no_gradient(config, idle):
    objective = alignment(**config)
    objective(make_batch())["loss"].backward()
    for name, parameter in objective.model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
        if name.split(".")[0] in idle:
            assert not parameter.requires_grad


TEACHER = {"output_width": SMALL["projection_width"]}


def test_the_teacher_learns_alone_from_one_frame_of_each_medium():
    objective = alignment(learner="teacher", model={"teacher": SMALL["teacher"] | TEACHER})
    batch = make_batch()
    objective(batch)["loss"].backward()
    trained = {n for n, p in objective.model.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"teacher", "text", "projections"}
    assert trained == {n for n, p in objective.model.named_parameters() if p.requires_grad}
    objective.eval()
    seen = objective.encode_video(batch)["vector"]
    middle = batch["frames"].shape[1] // 2
    alone = objective.encode_video(batch | {"frames": batch["frames"][:, [middle]]})["vector"]
    torch.testing.assert_close(seen, alone)
    expected = objective.model.encode_picture(batch | {"frames": batch["frames"][:, [middle]]})
    torch.testing.assert_close(seen, torch.nn.functional.normalize(expected, dim=1))


def test_a_teacher_that_cannot_learn_from_texts_is_refused():
    with pytest.raises(RecipeError, match=r"output_width: 16, and texts become 12 numbers"):
        alignment(learner="teacher")
    with pytest.raises(ValueError, match="learner teacher: matching"):
        alignment(learner="teacher", matching=1.0)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_without_negatives_counts_them_and_goes_on(rows):
    batch = make_batch(rows=rows, video=torch.zeros(rows, dtype=torch.long))
    parts = alignment(**ALL)(batch)
    parts["loss"].backward()
    assert float(parts["matching"].detach()) == 0
    assert float(parts["without_negative"].detach()) == 1
    assert torch.isfinite(parts["loss"])


def test_negatives_never_belong_together_and_are_probably_alike():
    logits = torch.tensor([[9.0, 8.0, 0.0], [8.0, 9.0, 8.0], [0.0, 0.0, 9.0]])
    matches = torch.eye(3).bool()
    matches[0, 1] = matches[1, 0] = True
    draws = torch.empty(400, 3, 3).exponential_(generator=torch.Generator().manual_seed(0))
    chosen = torch.stack([draw_negatives(negative_weights(logits, matches), d)[0] for d in draws])
    assert (chosen[:, 0] == 2).all() and (chosen[:, 1] == 2).all()
    assert set(chosen[:, 2].tolist()) == {0, 1}
    weights = negative_weights(torch.tensor([[0.0, 200.0, -200.0]]), torch.zeros(1, 3).bool())
    assert float(weights.min()) == pytest.approx(1e-4)  # what seems hopeless is drawn now and then


def test_hidden_words_follow_the_draws():
    ids, may = torch.tensor([[20, 5, 6, 7, 0]]), torch.tensor([[False, True, True, True, False]])
    draws = torch.zeros(3, 1, 5)
    draws[0, 0] = torch.tensor([0.0, 0.0, 0.49, 0.0, 0.0])
    draws[1, 0] = torch.tensor([0.0, 0.5, 0.85, 0.95, 0.0])
    draws[2] = 0.999
    words = WordIds.of(Sizes(vocabulary=20))
    hidden = hide_words(ids, may, draws, words)
    assert hidden.ids.tolist() == [[20, 21, 19, 7, 0]]
    assert hidden.chosen.tolist() == [[False, True, True, True, False]]


def test_hidden_pieces_may_become_any_piece():
    ids, may = torch.tensor([[2, 5, 6, 3]]), torch.tensor([[False, True, True, True]])
    draws = torch.zeros(3, 1, 4)
    draws[1, 0] = torch.tensor([0.0, 0.5, 0.85, 0.85])
    draws[2, 0] = torch.tensor([0.0, 0.0, 0.0, 0.999])
    hidden = hide_words(ids, may, draws, WordIds.of(Sizes(**PIECES)))
    assert hidden.ids.tolist() == [[2, PIECES["text_mask"], 0, VOCABULARY - 1]]


def test_pieces_are_aligned_as_words_are():
    model = make_umt(words=PIECES)
    objective = Alignment(Alignment.Config.model_validate(ALL), model)
    for module in objective.frozen():
        module.requires_grad_(False)
    text = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0], [2, 8, 9, 3], [2, 9, 3, 0]])
    batch = make_batch(text=text, text_length=torch.tensor([4, 3, 4, 3]))
    objective.train()(batch)["loss"].backward()
    missed = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not missed
    assert all(p.grad is None for p in model.decoder.parameters()), "it answers nothing here"
    alone = {"text": text[1:2, :3], "text_length": torch.tensor([3])}
    model.eval()
    torch.testing.assert_close(model.encode_text(batch)[1:2], model.encode_text(alone))


def test_a_text_alone_and_padded_is_read_alike():
    model, batch = make_umt().eval(), make_batch()
    whole = model.encode_text(batch)
    alone = model.encode_text({"text": batch["text"][1:2, :3], "text_length": torch.tensor([3])})
    torch.testing.assert_close(whole[1:2], alone)


def test_matching_is_asked_of_pairs():
    objective = alignment(**ALL).eval()
    assert objective.match(make_batch())["score"].shape == (4,)


def test_what_a_model_cannot_do_is_refused():
    with pytest.raises(RecipeError, match=r"parts\.fusion: objective alignment needs it"):
        alignment(absent=("fusion",), words=1.0)
    with pytest.raises(RecipeError, match=r"parts\.teacher: objective alignment needs it"):
        alignment(absent=("teacher",), mask={"kind": "attention"})
    with pytest.raises(RecipeError, match="needs a model with encode_text"):
        Alignment(Alignment.Config(), make_dualvgr())


def gradients(rank, workers=1):
    """Return loss and gradients of the contrast on this worker's part of a batch."""
    objective = alignment().double()
    parallel = DistributedDataParallel(objective) if workers > 1 else objective
    own, batch = own_rows(4 // workers), make_batch()
    part = {key: value[own] for key, value in batch.items() if value.ndim}
    part["video_index"] = part["video_index"] - own.start
    loss = parallel(part | {"normalizer": torch.tensor(4.0 / workers)})["loss"]
    loss.backward()
    found = {n: p.grad for n, p in objective.named_parameters() if p.requires_grad}
    return found | {"loss": gather(loss.detach()[None]).mean()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_have_the_gradients_of_one(tmp_path, workers):
    expected = gradients(0)
    for share in run_in_processes(workers, gradients, tmp_path, workers):
        for name, value in expected.items():
            torch.testing.assert_close(share[name], value, rtol=1e-9, atol=1e-10, msg=name)


def test_similarity_of_a_medium_with_several_vectors():
    media, texts = torch.eye(3)[None, :2], torch.eye(3)
    mean = losses.similarity(media, texts)
    assert mean.tolist() == [[0.5, 0.5, 0.0]]
    assert losses.similarity(media, texts, "max").tolist() == [[1.0, 1.0, 0.0]]
