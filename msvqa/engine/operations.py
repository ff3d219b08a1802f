"""Operations: how many a step takes, and how many a second the best matrix product reaches.

A multiplication with its addition counts as 2. Counted are matrix products, convolutions, attention
and LSTMs, which are nearly all of a step; what is computed again to save memory counts again.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

logger = logging.getLogger(__name__)

aten = torch.ops.aten
PRODUCT_SIZES = {"cpu": (512, 1024), "cuda": (8192,)}
"""Of square matrices; on processors of few cores the smaller ones are faster."""
REPEATS = 4
TRIED_S = 0.1
"""So long a product of each size is repeated: on a busy machine few are not interrupted."""


def _recurrent(sequence: Tensor, *weights: Tensor) -> int:
    """Count a layer of an LSTM over (T, B, D): each weight is used at each place."""
    places = sequence.shape[0] * sequence.shape[1]
    return 2 * places * sum(weight.numel() for weight in weights if weight.ndim == 2)


def _cudnn_rnn(sequence: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    return _recurrent(sequence, *weights)


def _mkldnn_rnn(sequence: Tensor, inner: Tensor, hidden: Tensor, *_: Any, **__: Any) -> int:
    return _recurrent(sequence, inner, hidden)


def _twice(formula: Callable[..., int]) -> Callable[..., int]:
    """Return the formula of a gradient: with respect to what comes in, and to the weights."""
    return lambda *arguments, **named: 2 * formula(*arguments, **named)


# PyTorch has no formula for attention on processors, nor for any LSTM.
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        aten._scaled_dot_product_flash_attention
    ],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
    aten.mkldnn_rnn_layer: _mkldnn_rnn,
    aten.mkldnn_rnn_layer_backward: _twice(_mkldnn_rnn),
    aten._cudnn_rnn: _cudnn_rnn,
    aten._cudnn_rnn_backward: _twice(_cudnn_rnn),
}


class Operations(TorchDispatchMode):
    """Counts the operations of the block.

    Its results may differ in the last bit: libraries that see it may choose other kernels. The
    `FlopCounterMode` of PyTorch also hangs hooks on every module and tensor, to say which layer
    takes how many, and ends the block where one of its formulas refuses a shape.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.is_partial = False
        """Whether some of them could not be counted."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute, and count."""
        kwargs = kwargs or {}
        formula = FORMULAS.get(getattr(func, "_overloadpacket", None))
        if formula is None and isinstance(func, torch._ops.OpOverload):
            # Without gradients, operators arrive here that are made of those with a formula.
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        out = func(*args, **kwargs)
        if formula is not None:
            self._add(formula, args, kwargs | {"out_val": out})
        return out

    def _add(
        self, formula: Callable[..., int], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        try:
            self.count += formula(*args, **kwargs)
        except Exception as error:
            # Formulas of PyTorch refuse shapes that its operators take; training goes on.
            if not self.is_partial:
                logger.warning("operations cannot be counted: %r", error)
            self.is_partial = True


def best_time(
    work: Callable[[], Tensor],
    device: torch.device,
    repeats: int = REPEATS,
    at_least_s: float = 0.0,
) -> float:
    """Return the shortest time of one call in seconds; the first call only warms up.

    Args:
        work: what is called.
        device: where it computes.
        repeats: fewest calls.
        at_least_s: calls go on until all together took so long.
    """
    times: list[float] = []
    while len(times) < repeats or sum(times) < at_least_s:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def product_flops(device: torch.device, kind: torch.dtype) -> float:
    """Return the operations per second of the best matrix product of a type, as threads are now.

    Takes a quarter of a second, once in a process. No random numbers of others are used up.
    """
    return _product_flops(device, kind, torch.get_num_threads())


@cache
def _product_flops(device: torch.device, kind: torch.dtype, threads: int) -> float:
    generator = torch.Generator(device).manual_seed(0)
    found = 0.0
    for n in PRODUCT_SIZES[device.type]:
        a, b = (torch.rand(n, n, device=device, generator=generator).to(kind) for _ in range(2))
        seconds = best_time(partial(torch.matmul, a, b), device, at_least_s=TRIED_S)
        found = max(found, 2 * n**3 / seconds)
    return found
