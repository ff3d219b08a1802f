"""How the workers of a stage share its model: each has all of it, or each a part.

`ddp` gives every worker the whole model and averages the gradients. `fsdp` cuts every parameter,
with its gradient and the moments of the optimizer, along the first axis, one piece for each worker;
a layer is whole only while it computes (Rajbhandari et al., "ZeRO", 2020,
https://arxiv.org/abs/1910.02054; Zhao et al., "PyTorch FSDP", 2023,
https://arxiv.org/abs/2304.11277). What is written is whole and the same in both.
"""

import copy
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
from msvqa.engine.origins import Origins, names_not_stored
from msvqa.errors import RecipeError
from msvqa.models.model import Model, untrained
from msvqa.models.parts import parameters_of
from msvqa.objectives.objective import Objective
from msvqa.stage_config import StageConfig

NEEDED = ("set_reduce_scatter_unused_params", "reset_iter_state")
"""What earlier versions of PyTorch, with which all else works, cannot do with cut models."""


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

    def whole(
        self, optimizer: torch.optim.Optimizer, origins: Origins
    ) -> tuple[Model, dict[str, Any]]:
        """Return the whole model and the state of its optimizer; called by all workers alike.

        Only those of the first worker are to be used.

        Args:
            optimizer: of the model.
            origins: of its parts; weights that no checkpoint holds are not needed.
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
        # Built now, by all alike: its files may be gone when a checkpoint is written.
        self._like = untrained(model)
        _broadcast(model, device)
        members = parameters_of(model.parts())
        uncut = {p for part in model.uncut for p in members.get(part, ())}
        # A number alone cannot be cut.
        uncut |= {p for p in model.parameters() if not p.ndim}
        mesh = init_device_mesh(device.type, (worker_count(),))
        self._units: list[FSDPModule] = [
            fully_shard(layer, mesh=mesh, ignored_params=uncut)
            for layer in layers_of(model)
            if not uncut.issuperset(layer.parameters())
        ]
        self._root = fully_shard(objective, mesh=mesh, ignored_params=uncut)
        # As for replicas, parameters that a worker has not asked have gradients of zero.
        self._root.set_reduce_scatter_unused_params(True)
        self._uncut = [p for p in model.parameters() if not isinstance(p, DTensor)]
        for parameter in self._uncut:
            parameter.data = parameter.data.to(device)
        # A pass that computes nothing: with the first, the library finds out what is inside what,
        # and what has never been put together would take no part in the first steps.
        objective.begin_pass = lambda: None  # type: ignore[assignment]
        register_fsdp_forward_method(objective, "begin_pass")
        cast(Any, objective).begin_pass()
        for unit in self._units:
            unit.unshard()
            unit.reshard()
        self._root.reshard()

    def adding_up(self, last: bool) -> AbstractContextManager[None]:
        """Return no context: gradients are cut in each pass, whole ones would need the memory."""
        return nullcontext()

    def clip(self, parameters: Sequence[nn.Parameter], limit: float) -> Tensor:
        """Finish the gradients of a step; return the norm (,) that they had before clipping."""
        for parameter in self._uncut:
            if parameter.requires_grad:
                found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = mean_over_workers(found)
        kinds = [[p for p in parameters if isinstance(p, DTensor) is cut] for cut in (True, False)]
        norms = [get_total_norm([p.grad for p in kind if p.grad is not None]) for kind in kinds]
        norm = torch.linalg.vector_norm(torch.stack([_whole(n).to(self.device) for n in norms]))
        for kind in kinds:
            clip_grads_with_norm_(kind, limit, norm)
        return norm

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Put the model together on every worker, so that none has to wait for another."""
        self._root.set_reshard_after_forward(False)
        try:
            for module in (self._root, *self._units):
                module.unshard()
            yield
        finally:
            # Else the next backward pass would begin with the layers that were asked last, which
            # on a worker that was asked nothing are none.
            self._root.reset_iter_state()
            for unit in self._units:
                unit.set_reshard_after_forward(True, recurse=False)

    def own_weights(self) -> Mapping[str, Tensor]:
        """Return what this worker has of all weights."""
        return {
            name: value.to_local() if isinstance(value, DTensor) else value
            for name, value in super().own_weights().items()
        }

    def whole(
        self, optimizer: torch.optim.Optimizer, origins: Origins
    ) -> tuple[Model, dict[str, Any]]:
        """Return them as `Replicas.whole`, on the CPU; of what is not needed, without values."""
        keeps, state = dist.get_rank() == 0, optimizer.state_dict()
        own, without = super().own_weights(), names_not_stored(self.objective.model, origins)
        weights = _gathered({n: v for n, v in own.items() if n not in without}, keeps)
        moments = {number: _gathered(own, keeps) for number, own in state["state"].items()}
        if not keeps:
            return self.objective.model, {}
        model = copy.deepcopy(self._like)
        model.load_state_dict(weights, strict=False, assign=True)
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
    """Return how the workers share the model of an objective; its parameters may be others then.

    Raises:
        RecipeError: this model, or this version of PyTorch, cannot be cut.
    """
    if not is_cut(stage):
        return Replicas(objective, device)
    kinds = {p.dtype for p in objective.model.parameters() if p.requires_grad}
    problem = ""
    if not all(hasattr(FSDPModule, name) for name in NEEDED):
        problem = f"PyTorch {torch.__version__} is too old for it"
    elif len(kinds) > 1:
        problem = f"what is trained has several types: {', '.join(sorted(map(str, kinds)))}"
    elif not objective.asks_all_parts and stage.batch.streams == "mixed":
        problem = "batches of all workers must be of one kind: batch.streams=apart"
    if problem:
        raise RecipeError([f"stages {stage.name}: sharding fsdp: {problem}"])
    return Shards(objective, device)


def is_cut(stage: StageConfig) -> bool:
    """Whether each worker of a stage has a part of its model alone."""
    return stage.sharding == "fsdp" and worker_count() > 1


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of a model, the outermost of lists: each is put together on its own."""
    lists = (nn.ModuleList, nn.ModuleDict)
    for child in model.children():
        is_layer = isinstance(model, nn.ModuleList) and not isinstance(child, lists)
        if not is_layer:
            yield from layers_of(child)
        elif any(True for _ in child.parameters()):
            yield child


def _broadcast(model: nn.Module, device: torch.device) -> None:
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
