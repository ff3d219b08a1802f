"""Losses: hand-computed values and invariances."""

import math

import pytest
import torch

from msvqa import losses


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def embeddings():
    return torch.randn(3, 5, 8).double(), torch.randn(3, 5, 8).double()


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    found = losses.cross_entropy(torch.zeros(2, 1854), torch.tensor([5, 1853]))
    torch.testing.assert_close(found, torch.full((2,), math.log(1854)))


def test_consistency_by_hand():
    # Two nodes: centred, they are opposite, whatever they are.
    first = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    second = torch.tensor([[[1.0, 5.0], [-3.0, 1.0]]])
    torch.testing.assert_close(losses.consistency(first, second), torch.zeros(1))
    # Equal nodes are zero when centred: similarities 0 against +-1.
    same = torch.ones(1, 2, 2)
    torch.testing.assert_close(losses.consistency(first, same), torch.ones(1))


def test_consistency_ignores_shift_scale_and_rotation():
    first, second = embeddings()
    rotation, _ = torch.linalg.qr(torch.randn(8, 8).double())
    changed = 3 * second @ rotation + torch.randn(8).double()
    expected = losses.consistency(first, second)
    torch.testing.assert_close(losses.consistency(first, changed), expected)
    assert (losses.consistency(first, first) == 0).all()


def test_consistency_of_equal_nodes_ignores_rounding():
    nodes = torch.randn(1, 1, 8).expand(1, 5, 8)
    rounded = nodes + 1e-8 * torch.randn(1, 5, 8)
    assert float(losses.consistency(rounded, nodes)) < 1e-3


def test_dependence_equals_the_trace_of_its_definition():
    first, second = embeddings()
    centring = torch.eye(5).double() - 1 / 5
    expected = [
        torch.trace(centring @ a @ a.T @ centring @ b @ b.T)
        for a, b in zip(first, second, strict=True)
    ]
    torch.testing.assert_close(losses.dependence(first, second), torch.stack(expected))


def test_dependence_by_hand():
    # Centred: -1 and 1, so both kernels are [[1, -1], [-1, 1]]; four products of 1.
    nodes = torch.tensor([[[0.0], [2.0]]])
    torch.testing.assert_close(losses.dependence(nodes, nodes), torch.tensor([4.0]))
    torch.testing.assert_close(losses.dependence(nodes, torch.ones(1, 2, 3)), torch.zeros(1))


def test_dependence_is_symmetric_and_ignores_shift():
    first, second = embeddings()
    expected = losses.dependence(first, second)
    torch.testing.assert_close(losses.dependence(second + 7, first), expected)


def test_squared_error_by_hand():
    output = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]])
    target = torch.tensor([[[1.0, 4.0]], [[3.0, 1.0]]])
    torch.testing.assert_close(losses.squared_error(output, target), torch.tensor([2.0, 5.0]))


def test_losses_stay_precise_in_half_precision_regions():
    first, second = (e.float() for e in embeddings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses.dependence(first, second)
    torch.testing.assert_close(found, losses.dependence(first, second))
    assert (
        losses.cross_entropy(torch.zeros(1, 3).bfloat16(), torch.tensor([0])).dtype == torch.float32
    )


def test_contrastive_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 4.0]])
    matches = torch.tensor([[True, False, False], [True, True, False], [False, False, False]])
    expected = [math.log(math.exp(2) + 2) - 2, math.log(3), 0.0]
    torch.testing.assert_close(losses.contrastive(logits, matches), torch.tensor(expected))


def test_contrastive_does_not_depend_on_the_order_of_columns():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, generator=generator)
    matches = torch.rand(4, 9, generator=generator) < 0.3
    order = torch.randperm(9, generator=generator)
    torch.testing.assert_close(
        losses.contrastive(logits[:, order], matches[:, order]),
        losses.contrastive(logits, matches),
    )


@pytest.mark.parametrize("size", [1, 3])
def test_contrastive_stays_finite_where_everything_matches(size):
    logits = torch.zeros(size, size, dtype=torch.bfloat16, requires_grad=True)
    losses.contrastive(logits, torch.ones(size, size, dtype=torch.bool)).mean().backward()
    assert logits.grad.isfinite().all()
