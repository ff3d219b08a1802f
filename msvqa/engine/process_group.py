"""The group of processes that train together; on one machine it is kept off the network."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from msvqa.engine import cluster


def torch_config(backend: str) -> TorchConfig:
    """Return how the workers of the connected cluster form their group."""
    return LoopbackTorchConfig(backend) if cluster.on_loopback() else TorchConfig(backend)


class LoopbackTorchConfig(TorchConfig):
    """Lets the workers of one machine find each other through a file, over loopback alone.

    Ray's own way starts torch's TCP store, which listens on all interfaces and asks nobody who
    they are.
    """

    @property
    def backend_cls(self) -> type["_FileBackend"]:
        """The class that sets up the group."""
        return _FileBackend


class _FileBackend(_TorchBackend):
    def __init__(self) -> None:
        super().__init__()
        self._folder: str | None = None

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Form the group; a new file each time, since a file serves one group only."""
        self._folder = tempfile.mkdtemp(prefix="msvqa-group-")
        worker_group.execute(_set_torch_distributed_env_vars)
        worker_group.execute(_talk_over_loopback)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=(Path(self._folder) / "store").as_uri(),
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Dissolve the group and remove its file."""
        try:
            super().on_shutdown(worker_group, backend_config)
        finally:
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)


def _talk_over_loopback() -> None:
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
