"""Layers of the network."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from msvqa.models.layers.answer import AnswerDecoder, BilinearFusion
from msvqa.models.layers.graph import GraphAttention, GraphReadout
from msvqa.models.layers.question import QuestionAttention, QuestionEncoder
from msvqa.models.layers.recurrent import BidirectionalLSTM


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_lstm_equals_packed_sequences():
    ours = BidirectionalLSTM(5, 8).double()
    theirs = nn.LSTM(5, 4, batch_first=True, bidirectional=True).double()
    state = dict(ours.forwards.state_dict())
    state |= {f"{name}_reverse": value for name, value in ours.backwards.state_dict().items()}
    theirs.load_state_dict(state)
    sequence, length = torch.randn(4, 7, 5).double(), torch.tensor([3, 7, 1, 5])
    outputs, final = ours(sequence, length)
    packed = pack_padded_sequence(sequence, length, batch_first=True, enforce_sorted=False)
    expected, (last, _) = theirs(packed)
    padded, _ = pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(outputs, padded, rtol=0, atol=1e-12)
    torch.testing.assert_close(final, torch.cat([last[0], last[1]], 1), rtol=0, atol=1e-12)


def test_lstm_without_lengths_reads_everything():
    lstm, sequence = BidirectionalLSTM(5, 8), torch.randn(3, 4, 5)
    whole = lstm(sequence, torch.full((3,), 4))
    for found, expected in zip(lstm(sequence), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_lstm_refuses_odd_width():
    with pytest.raises(ValueError, match="not even"):
        BidirectionalLSTM(5, 7)


def test_question_does_not_depend_on_padding():
    encoder = QuestionEncoder(20, 6, 8, (0.0, 0.0)).double()
    attention = QuestionAttention(8, padded_length=21).double()
    length = torch.tensor([3, 5])
    question = torch.randint(2, 20, (2, 5))
    question = question * (torch.arange(5) < length[:, None])
    longer = torch.cat([question, torch.full((2, 4), 7)], dim=1)  # also whatever the padding is

    def vectors(ids):
        words, contextual = encoder(ids, length)
        return attention(words, contextual, length)[0], encoder.summarize(words, length)

    for found, expected in zip(vectors(longer), vectors(question), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_question_attention_equals_masking_after_softmax():
    attention = QuestionAttention(8, padded_length=9).double()
    length = torch.tensor([9, 4, 1])
    valid = torch.arange(9) < length[:, None]
    contextual = torch.randn(3, 9, 8).double() * valid[..., None]
    words = torch.randn(3, 9, 6).double()
    enhanced = nn.functional.normalize(attention.enhance(contextual), dim=-1)
    weights = torch.softmax(attention.score(enhanced).squeeze(-1), dim=1) * valid
    weights = weights / (weights.sum(1, keepdim=True) + 1e-5)
    found = attention(words, contextual, length)[1]
    torch.testing.assert_close(found, weights, rtol=0, atol=1e-14)
    assert (found.sum(1) < 1).all()


def test_padding_does_not_rule_the_first_gradient():
    encoder, attention = QuestionEncoder(20, 6, 8, (0.0, 0.0)), QuestionAttention(8, 21)
    nn.init.zeros_(attention.enhance.bias)
    length = torch.tensor([3, 5])
    words, contextual = encoder(torch.randint(2, 20, (2, 5)), length)
    attention(words, contextual, length)[0].square().sum().backward()
    assert attention.enhance.bias.grad.norm() < 10 * attention.enhance.weight.grad.norm()


def test_graph_follows_a_permutation_of_clips():
    graph = GraphAttention(8, 2, dropout=0.0, self_loops=True).double()
    nodes, scores = torch.randn(2, 5, 8).double(), torch.rand(2, 5).double()
    order = torch.randperm(5)
    permuted, _ = graph(nodes[:, order], scores[:, order])
    torch.testing.assert_close(permuted, graph(nodes, scores)[0][:, order], rtol=0, atol=1e-14)


def test_scores_scale_values_but_not_attention():
    graph = GraphAttention(8, 2, dropout=0.0, self_loops=True)
    nodes = torch.randn(1, 4, 8)
    new, attention = graph(nodes, torch.zeros(1, 4))
    assert (new == 0).all()
    torch.testing.assert_close(attention, graph(nodes, torch.ones(1, 4))[1])


def test_without_self_loops_no_clip_attends_to_itself():
    graph = GraphAttention(8, 2, dropout=0.0, self_loops=False)
    _, attention = graph(torch.randn(1, 4, 8), torch.ones(1, 4))
    assert (attention.diagonal(dim1=2, dim2=3) == 0).all()
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 2, 4))


def test_graph_heads_start_like_layers_of_their_own():
    graph = GraphAttention(768, 4, dropout=0.0, self_loops=True)
    bound = (6 / (768 + 192)) ** 0.5
    assert bound * 0.99 < float(graph.project.weight.detach().abs().max()) <= bound
    assert (graph.project.bias == 0).all()


def test_readout_ignores_the_order_of_clips():
    readout, nodes = GraphReadout(8, dropout=0.0), torch.randn(2, 5, 8)
    torch.testing.assert_close(readout(nodes[:, torch.randperm(5)]), readout(nodes))


@pytest.mark.parametrize(("adds_factors", "is_heard"), [(False, False), (True, True)])
def test_one_modality_alone_is_heard_where_factors_are_added(adds_factors, is_heard):
    torch.manual_seed(0)
    fusion = BilinearFusion(8, adds_factors)
    torch.nn.init.zeros_(fusion.appearance.bias)
    silent, motion = torch.zeros(1, 2, 8), torch.randn(2, 2, 8)
    found = fusion(silent.expand(2, 2, 8), motion)
    assert (not torch.equal(found[0], found[1])) == is_heard


def test_one_question_cannot_train_batch_norm():
    decoder = AnswerDecoder(8, 3, 0.0, "batch")
    sentence, video = torch.randn(1, 8), torch.randn(1, 8)
    with pytest.raises(ValueError, match=r"single question.*answer_norm: layer"):
        decoder.train()(sentence, video)
    assert decoder.eval()(sentence, video).shape == (1, 3)
    assert AnswerDecoder(8, 3, 0.0, "layer").train()(sentence, video).shape == (1, 3)
