"""Buffers: one copy, memory used again, and never under somebody's feet."""

import numpy as np
import torch

from msvqa.data.buffers import Buffers


def videos(start: int, count: int = 3) -> list[dict[str, np.ndarray]]:
    return [
        {"a": np.full((2, 5), start + i, np.float16), "b": np.full(4, start + i, np.float32)}
        for i in range(count)
    ]


def test_stacks_every_array():
    batch = Buffers().stack(videos(1))
    assert batch["a"].dtype == torch.float16 and batch["a"].shape == (3, 2, 5)
    assert batch["b"][:, 0].tolist() == [1, 2, 3]


def test_memory_is_used_again_after_the_last_use():
    buffers = Buffers()
    batch = buffers.stack(videos(1))
    place = batch["a"].data_ptr()
    del batch
    assert buffers.stack(videos(5))["a"].data_ptr() == place


def test_what_is_kept_stays_as_it_is():
    buffers = Buffers()
    kept = [buffers.stack(videos(n)) for n in range(4)]
    assert [batch["b"][0, 0].item() for batch in kept] == [0, 1, 2, 3]
    view = buffers.stack(videos(7))["a"][1:].transpose(0, 1)
    buffers.stack(videos(9))
    assert (view[:, 0] == 8).all(), "a view alone keeps the memory"
