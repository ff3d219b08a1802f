"""Host memory of batches: gathered into once, and used again when nobody holds the batch."""

import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from msvqa.data.batch import Batch

VideoArrays = Mapping[str, np.ndarray]


class Buffers:
    """Stacks the arrays of videos into tensors whose memory returns here after their last use.

    Fresh memory may cost a page fault every 4 KiB. A batch that is kept stays as it is: its memory
    is free only when no tensor and no view shares it any more.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)

    def stack(self, videos: Sequence[VideoArrays]) -> Batch:
        """Return the arrays of the videos as tensors, first axis the videos, by one copy."""
        keys = videos[0] if videos else ()
        return {key: self._gather([video[key] for video in videos]) for key in keys}

    def _gather(self, arrays: Sequence[np.ndarray]) -> Tensor:
        target = self._take((len(arrays), *arrays[0].shape), arrays[0].dtype)
        np.stack(arrays, out=target.numpy())
        return target

    def _take(self, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
        if self._pinned:
            # PyTorch keeps page-locked memory for reuse itself, and knows which copies from it to
            # the device are still under way.
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            return torch.empty(shape, dtype=kind, pin_memory=True)
        size = int(np.prod(shape)) * dtype.itemsize
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        lent = memory.view(dtype).reshape(shape)
        # The tensor's storage holds this very array, so it lives as long as any view of the tensor.
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent)
