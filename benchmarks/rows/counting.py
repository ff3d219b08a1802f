"""What a piece of work does, counted: operators, operations, and bytes that it keeps."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from msvqa.data.batch import Batch

Work = Callable[[], object]


class Operators(TorchDispatchMode):
    """Collects the names of the operators that a block runs, those of the gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operator and remember its name."""
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def operators(work: Work) -> list[str]:
    """Return the names of the operators that a call runs."""
    with Operators() as seen:
        work()
    return seen.names


def operations(work: Work, *, recurrent: bool = False) -> float:
    """Return the additions and multiplications of a call's products and convolutions.

    Args:
        work: the call.
        recurrent: count those of LSTMs too. They are one operator to the libraries that run them,
            so the call is made without these, and is slow.
    """
    opened = _without_libraries() if recurrent else nullcontext()
    with opened, FlopCounterMode(display=False) as counted:
        work()
    return float(counted.get_total_flops())


@contextmanager
def _without_libraries() -> Iterator[None]:
    with warnings.catch_warnings():
        # On putting its switches back, PyTorch warns of one that this machine does not have.
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        with (
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
        ):
            yield


def kept_bytes(module: nn.Module, inputs: Tensor | Batch) -> int:
    """Return the bytes that a forward pass keeps for the gradients, without those of weights.

    What several operators keep is counted once.
    """
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        # The result holds on to all that is kept, so that no memory is used twice.
        result = module(inputs)
    total = sum(kept.values())
    del result
    return total
