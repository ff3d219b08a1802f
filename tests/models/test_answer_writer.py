"""The decoder of answers: causal, closed, ranked as published; what it begins as."""

import pytest
import torch

from msvqa.models.layers import answer_writer
from tests.models.small_umt import ANSWERS, make_answering_umt, make_questions


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = make_answering_umt().eval()
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.add_(torch.randn_like(weight) * 0.3)
    return model


@pytest.fixture(scope="module")
def asked(model):
    with torch.no_grad():
        return model.ask(make_questions())


def test_answers_begin_end_and_are_cut(model):
    assert model.decoder.answers.tolist() == [
        [2, 3, -1, -1, -1], [2, 3, -1, -1, -1], [2, 5, 3, -1, -1], [2, 6, 7, 3, -1],
        [2, 6, 8, 3, -1], [2, 9, 10, 11, 3], [2, 9, 10, 11, 3], [2, 14, 3, -1, -1],
    ]  # fmt: skip


def test_a_word_sees_only_what_is_before_it_and_its_own_question(model, asked):
    states, there = asked
    ids = model.decoder.answers[torch.tensor([[3, 5], [4, 6], [2, 7], [3, 4]])].clamp(min=0)
    with torch.no_grad():
        logits = model.decoder(ids, states, there)
        later = ids.clone()
        later[:, :, 2:] = 17
        torch.testing.assert_close(model.decoder(later, states, there)[:, :, :2], logits[:, :, :2])
        alone = model.decoder(ids[1:2, 1:], states[1:2], there[1:2])
        torch.testing.assert_close(alone[0, 0], logits[1, 1], rtol=1e-4, atol=1e-5)
        padded = states.clone()
        padded[~there] = 9.0
        torch.testing.assert_close(model.decoder(ids, padded, there), logits)


def log_likelihood(model, asked, question, answer):
    """Return what one answer's words cost, one after another, and the first of them."""
    states, there = (part[question : question + 1] for part in asked)
    words = [2, *ANSWERS[answer][:3], 3]
    each = []
    for length in range(1, len(words)):
        ids = torch.tensor([[words[:length]]])
        logits = model.decoder(ids, states, there)[0, 0, -1]
        each.append(float(logits.log_softmax(dim=0)[words[length]]))
    return sum(each), each[0]


def test_likelihood_is_that_of_all_words_one_after_another(model, asked):
    answers = torch.tensor([[2, 5], [3, 7], [4, 6], [7, 2]])
    with torch.no_grad():
        found = model.decoder.likelihood(*asked, answers)
        for question, answer in ((0, 5), (1, 3), (2, 6), (3, 2)):
            place = answers[question].tolist().index(answer)
            expected, _ = log_likelihood(model, asked, question, answer)
            assert float(found[question, place]) == pytest.approx(expected, abs=1e-4)


def test_all_candidates_are_ranked_by_likelihood_with_the_first_word_twice(model, asked):
    with torch.no_grad():
        ranked = model.decoder.rank(*asked, candidates=128)
        for question in range(4):
            scores = {}
            for answer in range(2, len(ANSWERS)):
                whole, first = log_likelihood(model, asked, question, answer)
                scores[answer] = whole + first
            order = sorted(scores, key=lambda answer: -round(scores[answer], 4))
            found = ranked.answers[question].tolist()
            assert {*found} == {*scores}, "classes without words are no answers"
            assert [round(scores[a], 3) for a in found] == pytest.approx(
                [round(scores[a], 3) for a in order], abs=2e-3
            )
    torch.testing.assert_close(ranked.log_probability.exp().sum(dim=1), torch.ones(4))
    both = ranked.log_probability.gather(1, ranked.answers.argsort(dim=1))
    torch.testing.assert_close(both[:, 3], both[:, 4], msg="those that are cut alike tie")


def test_candidates_are_chosen_by_their_first_word(model, asked):
    with torch.no_grad():
        first = model.decoder(torch.full((4, 1, 1), 2), *asked)[:, 0, 0].log_softmax(dim=1)
        ranked = model.decoder.rank(*asked, candidates=2)
        for question in range(4):
            by_first = {a: float(first[question, ANSWERS[a][0]]) for a in range(2, len(ANSWERS))}
            least = sorted(by_first.values())[-2]
            assert all(by_first[a] >= least - 1e-6 for a in ranked.answers[question].tolist())


def test_few_questions_at_a_time_are_ranked_as_all_at_once(model, asked, monkeypatch):
    with torch.no_grad():
        whole = model.decoder.rank(*asked, candidates=4)
        monkeypatch.setattr(answer_writer, "MOST_LOGITS", 1)
        parts = model.decoder.rank(*asked, candidates=4)
    assert torch.equal(whole.answers, parts.answers)
    torch.testing.assert_close(whole.log_probability, parts.log_probability)


def test_it_begins_as_the_fusion_half_with_its_words():
    model = make_answering_umt()
    model.begin(["decoder"])
    decoder, layer = model.decoder, model.fusion.layers[0]
    for own, theirs in ((decoder.words, model.text.words), (decoder.layers[0].own, layer.own),
                        (decoder.layers[0].inner, layer.inner), (decoder.head, model.word_head),
                        (decoder.layers[0].cross.query, layer.cross.query)):  # fmt: skip
        assert all(torch.equal(v, theirs.state_dict()[n]) for n, v in own.state_dict().items())
    assert decoder.layers[0].cross.key.weight.shape == (24, 24), "of text, not of clips"
    before = model.decoder.words.weight.clone()
    torch.nn.init.zeros_(model.text.words.weight)
    model.begin(["heads"])
    assert torch.equal(model.decoder.words.weight, before), "only where it is new"
