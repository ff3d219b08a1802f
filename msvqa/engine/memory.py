"""Memory that this process has used."""

import resource

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the largest memory so far: of the allocator on a GPU, else of the whole process.

    The latter counts pages of memory-mapped stores that were touched; all processes share these.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
