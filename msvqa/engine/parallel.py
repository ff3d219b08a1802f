"""How the workers of a stage share its model: each has all of it, or each a part.

`ddp` gives every worker the whole model and averages the gradients. `fsdp` cuts every parameter,
with its gradient and the moments of the optimizer, along the first axis, one piece for each worker;
a layer is whole only while it computes (Rajbhandari et al., "ZeRO", 2020,
https://arxiv.org/abs/1910.02054; Zhao et al., "PyTorch FSDP", 2023,
https://arxiv.org/abs/2304.11277). What is written is whole and the same in both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from msvqa.collectives import worker_count
from msvqa.data.batch import Batch
from msvqa.engine.distributed import mean_over_workers
from msvqa.engine.optim import restore_optimizer
from msvqa.models.model import Model, untrained
from msvqa.objectives.objective import Objective
from msvqa.stage_config import StageConfig


class Replicas:
    """Every worker has the whole model; gradients are averaged."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective, self.device = objective, device
        devices = [device] if device.type == "cuda" else None
        self._module: nn.Module = (
            objective
            if worker_count() == 1
            else DistributedDataParallel(objective, device_ids=devices)
        )

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch."""
        found: dict[str, Tensor] = self._module(batch)
        if self._module is not self.objective and not self.objective.asks_all_parts:
            # All workers wait for the gradients of all parts, also of those that no row asked for.
            trained = (p.sum() for p in self.objective.model.parameters() if p.requires_grad)
            found["loss"] = found["loss"] + 0 * sum(trained)
        return found

    def adding_up(self, last: bool) -> AbstractContextManager[None]:
        """Return the context of a pass of a step, whose gradients count after the last one."""
        no_sync: Callable[[], AbstractContextManager[None]] = getattr(
            self._module, "no_sync", nullcontext
        )
        return nullcontext() if last else no_sync()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Finish the gradients of a step; return the norm (,) that they had before clipping."""
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Let each worker ask the objective as often as it needs, without the others."""
        yield

    def own_weights(self) -> Mapping[str, Tensor]:
        """Return what this worker has of all weights."""
        weights: dict[str, Tensor] = self.objective.model.state_dict()
        return weights

    def whole(self, optimizer: torch.optim.Optimizer) -> tuple[Model, dict[str, Any]]:
        """Return the whole model and the state of its optimizer; called by all workers alike.

        Only those of the first worker are to be used.
        """
        return self.objective.model, optimizer.state_dict()

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take up what `whole` has given of an optimizer."""
        restore_optimizer(optimizer, state)


class Shards(Replicas):
    """Every worker has a part of each parameter."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self.objective, self.device, self._module = objective, device, objective
        model = objective.model
        _share(model, device)
        # A number alone cannot be cut, and what is not of the model, as a teacher, stays whole.
        members = {id(parameter) for parameter in model.parameters()}
        uncut = {p for p in objective.parameters() if id(p) not in members or not p.ndim}
        mesh = init_device_mesh(device.type, (worker_count(),))
        self._units: list[FSDPModule] = [
            fully_shard(layer, mesh=mesh, ignored_params=uncut) for layer in layers_of(model)
        ]
        self._root = fully_shard(objective, mesh=mesh, ignored_params=uncut)
        if not objective.asks_all_parts and hasattr(self._root, "set_reduce_scatter_unused_params"):
            # As for replicas; older versions of PyTorch have no such method.
            self._root.set_reduce_scatter_unused_params(True)
        self._uncut = [p for p in model.parameters() if not isinstance(p, DTensor)]
        for parameter in self._uncut:
            parameter.data = parameter.data.to(device)
        # A pass that computes nothing: with the first, the library finds out what is inside what.
        objective.begin_pass = lambda: None  # type: ignore[assignment]
        register_fsdp_forward_method(objective, "begin_pass")

    def adding_up(self, last: bool) -> AbstractContextManager[None]:
        """Return no context: gradients are cut in each pass, whole ones would need the memory."""
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Finish the gradients of a step; return the norm (,) that they had before clipping."""
        for parameter in self._uncut:
            if parameter.grad is not None:
                parameter.grad = mean_over_workers(parameter.grad)
        kinds = [[p for p in parameters if isinstance(p, DTensor) is cut] for cut in (True, False)]
        norms = [get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
        norm = torch.linalg.vector_norm(torch.stack([_whole(n).to(self.device) for n in norms]))
        for kind in kinds:
            clip_grads_with_norm_(kind, limit, norm)
        return norm

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Put the model together on every worker, so that none has to wait for another."""
        cast(Any, self.objective).begin_pass()
        self._root.set_reshard_after_forward(False)
        for module in (self._root, *self._units):
            module.unshard()
        try:
            yield
        finally:
            for module in (self._root, *self._units):
                module.reshard()
            for unit in self._units:
                unit.set_reshard_after_forward(True, recurse=False)

    def own_weights(self) -> Mapping[str, Tensor]:
        """Return what this worker has of all weights."""
        return {
            name: value.to_local() if isinstance(value, DTensor) else value
            for name, value in super().own_weights().items()
        }

    def whole(self, optimizer: torch.optim.Optimizer) -> tuple[Model, dict[str, Any]]:
        """Return the whole model and the state of its optimizer; called by all workers alike.

        Only those of the first worker are to be used; they are on the CPU.
        """
        keeps, state = dist.get_rank() == 0, optimizer.state_dict()
        weights = _gathered(self.objective.model.state_dict(), keeps)
        moments = {number: _gathered(own, keeps) for number, own in state["state"].items()}
        if not keeps:
            return self.objective.model, {}
        model = untrained(self.objective.model)
        model.load_state_dict(weights, assign=True)
        return model, {**state, "state": moments}

    def restore(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take up what `whole` has given of an optimizer, also that of replicas."""
        members = [p for group in optimizer.param_groups for p in group["params"]]
        moments = {
            number: {name: _cut(value, members[number]) for name, value in own.items()}
            for number, own in state["state"].items()
        }
        restore_optimizer(optimizer, {**state, "state": moments})


def share(objective: Objective, stage: StageConfig, device: torch.device) -> Replicas:
    """Return how the workers share the model of an objective; its parameters may be others then."""
    return (Shards if is_cut(stage) else Replicas)(objective, device)


def is_cut(stage: StageConfig) -> bool:
    """Whether each worker of a stage has a part of its model alone."""
    return stage.sharding == "fsdp" and worker_count() > 1


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model, the outermost of lists: each is put together on its own."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from (layer for layer in child if any(True for _ in layer.parameters()))
        else:
            yield from layers_of(child)


def _share(model: nn.Module, device: torch.device) -> None:
    """Give all workers the weights of the first, one after another by way of the device."""
    for tensor in (*model.parameters(), *model.buffers()):
        moved = tensor.detach().to(device)
        dist.broadcast(moved, src=0)
        tensor.data.copy_(moved)


def _whole(value: Any) -> Any:
    return value.full_tensor() if isinstance(value, DTensor) else value


def _gathered(values: Mapping[str, Any], keeps: bool) -> dict[str, Any]:
    """Return whole tensors on the CPU; of a worker that keeps none, nothing."""
    found = {}
    for name, value in values.items():
        whole = _whole(value)
        if keeps:
            found[name] = whole.cpu() if isinstance(whole, Tensor) else whole
    return found


def _cut(value: Any, parameter: nn.Parameter) -> Any:
    """Return this worker's part of a moment, cut as its parameter is; counts stay whole."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )
