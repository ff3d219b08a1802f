"""The group of processes that train together; on one machine it is kept off the network.

The controller imports this module and needs no torch, which takes seconds: what does is imported
in the workers.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend, BackendConfig

from msvqa.engine import cluster

FORM_WITHIN_S, DISSOLVE_WITHIN_S = 1800, 30


def group_config(backend: str) -> BackendConfig:
    """Return how the workers of the connected cluster form their group."""
    if cluster.on_loopback():
        return LoopbackConfig(backend)
    from ray.train.torch import TorchConfig

    return TorchConfig(backend)


@dataclass
class LoopbackConfig(BackendConfig):
    """Lets the workers of one machine find each other through a file, over loopback alone.

    Ray's own way starts torch's TCP store, which listens on all interfaces and asks nobody who
    they are.
    """

    backend: str

    @property
    def backend_cls(self) -> type["_FileBackend"]:
        """The class that sets up the group."""
        return _FileBackend

    @property
    def train_func_context(self) -> Callable[[], Any]:
        """What Ray enters around training: it makes a worker's GPU the current one."""
        from ray.train.torch import TorchConfig

        context: Callable[[], Any] = TorchConfig(self.backend).train_func_context
        return context


class _FileBackend(Backend):
    share_cuda_visible_devices = True

    def __init__(self) -> None:
        self._folder: str | None = None

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Form the group; a new file each time, since a file serves one group only."""
        self._folder = tempfile.mkdtemp(prefix="msvqa-group-")
        store = (Path(self._folder) / "store").as_uri()
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join_group, backend_config.backend, store, rank, len(worker_group)
                )
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Dissolve the group and remove its file."""
        several = len(worker_group) > 1
        try:
            # A worker may wait for one that has died; it is ended next.
            with suppress(GetTimeoutError):
                ray.get(
                    worker_group.execute_async(_leave_group, several), timeout=DISSOLVE_WITHIN_S
                )
        finally:
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)


def _join_group(backend: str, store: str, rank: int, workers: int) -> None:
    from ray.train.torch import config

    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(
        backend=backend,
        world_rank=rank,
        world_size=workers,
        init_method=store,
        timeout_s=FORM_WITHIN_S,
    )


def _leave_group(several: bool) -> None:
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=several)
