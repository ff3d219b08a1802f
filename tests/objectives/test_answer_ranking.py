"""Answer ranking: it learns answers, leaves alone what it never runs, refuses what has no words."""

import pytest
import torch

from msvqa.errors import RecipeError
from msvqa.objectives.answer_ranking import AnswerRanking
from tests.models.small import make_dualvgr
from tests.models.small_umt import make_answering_umt, make_questions, make_umt

ABSENT = ("teacher", "heads", "projections")


def ranking(absent=ABSENT, **config):
    objective = AnswerRanking(
        AnswerRanking.Config.model_validate(config), make_answering_umt(absent)
    )
    for module in objective.frozen():
        module.requires_grad_(False)
    return objective.train()


@pytest.mark.long
def test_it_learns_the_answers_of_a_few_questions():
    objective, batch = ranking(), make_questions(rows=8)
    batch["answer"] = torch.tensor([2, 3, 4, 7, 7, 2, 4, 3])
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    for _ in range(60):
        loss = objective(batch)["loss"]
        loss.backward()
        assert all(p.grad is not None for p in trained)
        optimizer.step()
        optimizer.zero_grad()
    found = objective.eval().predict(batch)
    assert found["top"][:, 0].tolist() == batch["answer"].tolist()
    assert found["top"].shape == found["probability"].shape == (8, 5)
    assert (found["probability"].diff(dim=1) <= 0).all()


def test_what_it_never_runs_gets_no_gradient():
    objective = ranking(absent=())
    objective(make_questions())["loss"].backward()
    for name, parameter in objective.model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name
    idle = {n.split(".")[0] for n, p in objective.named_parameters() if not p.requires_grad}
    assert idle == {"model"}
    frozen = {n.split(".")[1] for n, p in objective.named_parameters() if not p.requires_grad}
    assert frozen == {"teacher", "heads", "projections", "matching", "word_head"}


def test_answers_outside_the_list_count_nothing():
    objective = ranking().eval()
    whole = objective(make_questions(answer=torch.tensor([2, 0, 1, 3])))
    weights = torch.tensor([1.0, 0, 0, 1])
    some = objective(make_questions(answer=torch.tensor([2, 4, 4, 3]), weight=weights))
    torch.testing.assert_close(whole["loss"], some["loss"])
    assert float(whole["answered"]) == 0.5


def test_what_has_no_answers_in_pieces_is_refused():
    with pytest.raises(RecipeError, match=r"parts\.decoder: .* data\.tokenizer names"):
        AnswerRanking(AnswerRanking.Config(), make_umt())
    with pytest.raises(RecipeError, match=r"parts\.fusion: objective answer_ranking needs it"):
        ranking(absent=("fusion",))
    with pytest.raises(RecipeError, match="needs model umt"):
        AnswerRanking(AnswerRanking.Config(), make_dualvgr())
