"""The speed of training steps: examples a second, waiting for data, operations beside the best."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn

from msvqa.collectives import worker_count
from msvqa.data.processors.clock import Decoders
from msvqa.engine.operations import Operations, product_flops
from msvqa.engine.pace import COMPILING
from msvqa.engine.precision import TYPES
from msvqa.stage_config import StageConfig

COMPILED_STEPS = 2
"""Steps of a kind that PyTorch compiles: the first, and another time for sizes that change."""


@dataclass
class Lap:
    """Steps in a row."""

    best_flops: float
    """Operations a second that a step could reach; 0 where nobody asks."""
    waited_before_s: float = 0.0
    """What the clock of waiting shows at the start."""
    decoders: Decoders | None = None
    """Those who work while these steps are taken."""
    start_s: float = field(default_factory=lambda: time.perf_counter())
    steps: int = 0
    examples: float = 0.0
    operations: float = 0.0
    waiting_s: float = 0.0

    def __post_init__(self) -> None:
        self._busy_before_s = self.decoders.busy_s if self.decoders else 0.0

    def add(self, examples: float, operations: float, waited_s: float) -> None:
        """Take up a step."""
        self.steps += 1
        self.examples += examples
        self.operations += operations
        self.waiting_s = waited_s - self.waited_before_s

    def numbers(self, steps_left: int) -> dict[str, float]:
        """Return what a row says of speed; the lap ends now."""
        elapsed = max(time.perf_counter() - self.start_s, 1e-9)
        numbers = {
            "questions_per_s": self.examples / elapsed,
            "waiting": self.waiting_s / elapsed,
            "eta_s": steps_left * elapsed / max(self.steps, 1),
            "workers": worker_count(),
        }
        if self.decoders:
            busy_s = self.decoders.busy_s - self._busy_before_s
            # What is decoded ahead counts where it arrives, which may be in the next lap.
            numbers["decoders_idle"] = max(0.0, 1 - busy_s / self.decoders.workers / elapsed)
        if self.operations and self.best_flops:
            flops = self.operations / elapsed
            numbers |= {"tflops": flops / 1e12, "share_of_peak": flops / self.best_flops}
        return numbers


class Meter:
    """Times steps but the first of each kind, whose operations are counted, or which is compiled.

    The ceiling is measured here, before the first step, and not taken from `msvqa doctor`: with the
    threads and on the node that this worker has, where nobody may ever have called the doctor. It
    takes a quarter of a second. In float32 on GPUs it is the product without TF32, which
    convolutions may use: there the share may be more than 1.
    """

    def __init__(
        self,
        device: torch.device,
        stage: StageConfig,
        decoders: Decoders | None = None,
        *,
        counts: bool,
    ) -> None:
        """Measure the ceiling.

        Args:
            device: where steps compute.
            stage: says in which type.
            decoders: who decodes meanwhile, if anybody does.
            counts: whether operations are counted; by the first worker alone, whose rows are kept.
        """
        counts = counts and not stage.compile
        self._device, self._counts, self._compiles = device, counts, stage.compile
        self._decoders = decoders
        self._best = product_flops(device, TYPES[stage.precision]) if counts else 0.0
        if counts and device.type == "cuda":
            # The matrices are no part of what the stage needs.
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        self._operations: dict[int, int] = {}
        self._taken: Counter[int] = Counter()
        """Steps of each kind."""
        self._has_counted = False
        self.begin()

    def begin(self) -> None:
        """Begin a lap; the clock of waiting stands at 0."""
        self._whole = Lap(0.0, decoders=self._decoders)
        self._timed = Lap(self._best, decoders=self._decoders)

    def end(self, steps_left: int) -> dict[str, float]:
        """Return what a row says of the speed of the lap that ends now, and begin another.

        The device has done all its steps: what it still has to do would count here and in the next
        lap. Where no step was timed, the row is of those that were counted or compiled.
        """
        is_timed = self._timed.steps > 0
        numbers = (self._timed if is_timed else self._whole).numbers(steps_left)
        if self._compiles and not is_timed:
            numbers[COMPILING] = 1
        self.begin()
        return numbers

    def is_new(self, kind: int) -> bool:
        """Whether the operations of a kind of steps are still to be counted, on all workers."""
        return not self._compiles and kind not in self._operations

    def compiles(self, kind: int) -> bool:
        """Whether the next step of a kind is one that is compiled, which may take minutes."""
        return self._compiles and self._taken[kind] < COMPILED_STEPS

    @contextmanager
    def counting(self, kind: int, times: int, module: nn.Module) -> Iterator[None]:
        """Count the operations of the block, a pass that takes no part in the training.

        Libraries may choose other kernels while operations are counted, and the last bit changes.
        All workers take the pass together: losses may compare what they have.

        Args:
            kind: as in `stepped`.
            times: how many such passes, which are alike, a step has.
            module: its buffers, such as running means, are as before at the end.
        """
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with Operations() if self._counts else nullcontext() as operations:
            yield
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
        is_whole = operations is not None and not operations.is_partial
        self._operations[kind] = times * operations.count if operations and is_whole else 0
        self._has_counted = True

    def stepped(self, kind: int, examples: float, waited_s: float) -> None:
        """Take up a step that is done.

        Args:
            kind: which of the steps of a stage; those of a kind have equally many operations.
            examples: how many of all workers counted in it.
            waited_s: what the clock of waiting shows.
        """
        operations = self._operations.get(kind, 0)
        self._whole.add(examples, operations, waited_s)
        is_timed = not (self._has_counted or self.compiles(kind))
        self._taken[kind] += 1
        if is_timed:
            self._timed.add(examples, operations, waited_s)
            return
        self._has_counted = False
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._timed = Lap(self._best, waited_s, self._decoders)
