"""Runs a function in several processes that form a gloo group, without Ray."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_in_processes(
    count: int, function: Callable[..., Any], folder: Path, *arguments: Any
) -> list[Any]:
    """Call `function(rank, *arguments)` in all processes and return what they returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The server of these processes imports torch once.
    multiprocessing.set_forkserver_preload(["torch", "torch._dynamo", "torch.distributed"])
    mp.start_processes(
        _enter, (count, function, folder, port, arguments), count, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _enter(
    rank: int, count: int, function: Callable[..., Any], folder: Path, port: int, arguments: Any
) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=count)
    try:
        torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
