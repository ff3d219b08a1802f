"""Several workers that gather learn as one process with the whole batch does."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msvqa import losses
from msvqa.collectives import gather, own_rows, worker_count
from tests.engine.gloo import run_in_processes

ROWS, TOLERANCES = 8, {torch.float32: 1e-6, torch.float64: 1e-10}


class Pair(nn.Module):
    """Two encoders whose outputs are compared with those of all workers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(4, 5)

    def forward(self, first: Tensor, second: Tensor, ids: Tensor) -> Tensor:
        a = nn.functional.normalize(self.first(first), dim=1)
        b = nn.functional.normalize(self.second(second), dim=1)
        matches = ids[:, None] == gather(ids)
        there = losses.contrastive(a @ gather(b).T / 0.1, matches)
        back = losses.contrastive(b @ gather(a).T / 0.1, matches)
        return (there + back).mean() / 2


def gradients(rank: int, workers: int = 1) -> dict[str, Tensor]:
    """Return loss and gradients of one step on this worker's part of the batch."""
    found = {}
    for dtype in TOLERANCES:
        model = Pair().to(dtype)
        parallel = DistributedDataParallel(model) if workers > 1 else model
        generator = torch.Generator().manual_seed(1)
        first = torch.randn(ROWS, 6, generator=generator, dtype=torch.float64).to(dtype)
        second = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64).to(dtype)
        ids = torch.tensor([0, 1, 2, 3, 0, 5, 6, 7])
        own = own_rows(ROWS // workers)
        loss = parallel(first[own], second[own], ids[own])
        loss.backward()
        found[f"{dtype}/loss"] = gather(loss.detach()[None]).mean()
        found |= {f"{dtype}/{name}": p.grad for name, p in model.named_parameters()}
    if workers > 1:
        # Where the collective itself would hang, or mix up rows.
        with pytest.raises(ValueError, match="different shapes"):
            gather(torch.zeros(2 + rank, 3))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_have_the_gradients_of_one(tmp_path, workers):
    expected = gradients(0)
    for share in run_in_processes(workers, gradients, tmp_path, workers):
        for dtype, tolerance in TOLERANCES.items():
            for name in (key for key in expected if key.startswith(str(dtype))):
                torch.testing.assert_close(
                    share[name], expected[name], rtol=tolerance, atol=tolerance, msg=name
                )


def test_one_worker_has_its_own_rows():
    rows = torch.zeros(3, 2)
    assert worker_count() == 1
    assert gather(rows) is rows
    assert rows[own_rows(3)].shape == rows.shape
