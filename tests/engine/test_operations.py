"""Counts of operations, of layers whose number is known by hand; results stay as they are."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from msvqa.engine import operations
from msvqa.engine.operations import Operations, product_flops


def counted(work) -> int:
    with Operations() as found:
        work()
    return found.count


def test_a_product_and_its_gradients_count_two_for_each_multiplication():
    layer, rows = nn.Linear(6, 4, bias=False), torch.randn(5, 6, requires_grad=True)
    assert counted(lambda: layer(rows)) == 2 * 5 * 6 * 4
    assert counted(lambda: layer(rows).sum().backward()) == 3 * 2 * 5 * 6 * 4


def test_what_needs_no_gradients_counts_as_well():
    layer, rows = nn.Linear(6, 4), torch.randn(2, 5, 6)
    with torch.inference_mode():
        assert counted(lambda: layer(rows)) == 2 * 10 * 6 * 4


def test_attention_on_processors_counts_its_two_products():
    heads = torch.randn(2, 3, 7, 8, requires_grad=True)  # (B, heads, T, D)
    forward = 2 * 2 * (2 * 3) * 7 * 7 * 8

    def attend():
        return functional.scaled_dot_product_attention(heads, heads, heads)

    assert counted(attend) == forward
    # Backward four products more, and the scores once again.
    assert counted(lambda: attend().sum().backward()) == forward + 5 * forward // 2


def test_an_lstm_counts_its_two_matrices_at_each_place():
    lstm, sequence = nn.LSTM(6, 8, batch_first=True), torch.randn(3, 5, 6)
    forward = 2 * 3 * 5 * (4 * 8 * 6 + 4 * 8 * 8)
    assert counted(lambda: lstm(sequence)) == forward
    assert counted(lambda: lstm(sequence)[0].sum().backward()) == 3 * forward


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_gradients_and_random_numbers_are_the_same_with_and_without_counting(kind):
    def gradients(count: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(288, 5)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
            if count:
                counted(lambda: model(torch.randn(2, 3, 8, 8)).square().sum().backward())
            else:
                model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        return [*(p.grad for p in model.parameters()), torch.rand(4)]

    for with_count, without in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(with_count, without)


def test_the_best_product_is_measured_and_takes_no_random_numbers_of_others():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    operations._product_flops.cache_clear()
    assert product_flops(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.rand(3), expected)
