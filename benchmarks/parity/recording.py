"""Recorded files of the reference systems, and how what we compute is compared with them."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

EXACT, DOUBLE, STORED_AS_FLOAT = 0.0, 1e-10, 1e-6
SINGLE, SINGLE_RELATIVE = 2e-5, 1e-4
"""Two runs in single precision: this much, and this part of the value."""
SHARED = Path(os.environ.get("MSVQA_SHARED", Path(__file__).parents[3] / "shared"))
META = "meta"
"""The array that holds the settings of a recording, as JSON."""

Outputs = Mapping[str, Tensor]
"""What a run of ours gives, by the names of the recording."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference of one quantity of one file."""

    file: str
    quantity: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within its tolerance; a difference that is no number is not."""
        return self.difference <= self.tolerance


class Recording:
    """One recorded file: settings, inputs, weights and outputs.

    It keeps count of what has been looked at, so that nothing recorded stays uncompared in silence.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, path.stem
        self._read: set[str] = {META}
        self._arrays: dict[str, np.ndarray] = {}
        self.content: Any = None
        """What a JSON recording holds."""
        if path.suffix == ".json":
            self.content = json.loads(path.read_text(encoding="utf-8"))
        else:
            self._arrays = dict(np.load(path, allow_pickle=False))
        self.meta: dict[str, Any] = json.loads(str(self._arrays.get(META, "{}")))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a recorded array, which then counts as looked at."""
        self._read.add(name)
        return self._arrays[name]

    def names(self, start: str = "") -> list[str]:
        """Return the names of the recorded arrays that begin so."""
        return [name for name in self._arrays if name.startswith(start)]

    def cases(self, last: str) -> list[str]:
        """Return the cases of a recording: what stands before `/LAST` in its names."""
        end = f"/{last}"
        return [name.removesuffix(end) for name in sorted(self._arrays) if name.endswith(end)]

    def unread(self) -> list[str]:
        """Return the names of the arrays that nothing has looked at."""
        return sorted(set(self._arrays) - self._read)

    def ignore(self, name: str, why: str) -> None:
        """Leave an array uncompared; `why` is for the reader of the check."""
        assert why
        self._read.add(name)

    def input(self, name: str, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return an input; floating numbers in the precision asked for."""
        value = torch.from_numpy(self[f"in/{name}"])
        return value.to(dtype) if value.is_floating_point() else value

    def state(self, folder: str = "state") -> dict[str, Tensor]:
        """Return weights under the reference's names, in double precision."""
        values = {name.removeprefix(f"{folder}/"): self[name] for name in self.names(f"{folder}/")}
        return {k: torch.from_numpy(np.asarray(v)).to(_double(v)) for k, v in values.items()}

    def compare(
        self, quantity: str, found: Tensor | np.ndarray, tolerance: float = DOUBLE
    ) -> Comparison:
        """Compare with the array `quantity`; one that was not recorded is a failure."""
        if quantity not in self:
            return Comparison(self.file, f"{quantity}: not recorded", float("inf"), tolerance)
        return compare(self.file, quantity, found, self[quantity], tolerance)

    def compare_runs(self, run: Callable[[torch.dtype], Outputs]) -> Iterator[Comparison]:
        """Compare a run in double precision with `out64/`, one in single with `out/`."""
        for dtype, folder in ((torch.float64, "out64"), (torch.float32, "out")):
            names = self.names(f"{folder}/")
            found = run(dtype) if names else {}
            for name in names:
                value = found.get(name.removeprefix(f"{folder}/"))
                if value is None:
                    self._read.add(name)
                    yield Comparison(self.file, f"{name}: not computed", float("inf"), DOUBLE)
                elif dtype == torch.float64:
                    yield self.compare(name, value)
                else:
                    yield self.compare_single(name, value)

    def compare_single(
        self, quantity: str, found: Tensor | None, relative: float = SINGLE_RELATIVE
    ) -> Comparison:
        """Compare runs in single precision: the difference is what exceeds a part of the value.

        Args:
            quantity: name of the recorded array; one that was not recorded is a failure.
            found: what we computed; None where there is nothing.
            relative: that part.
        """
        if quantity not in self or found is None:
            what = "not computed" if found is None else "not recorded"
            return Comparison(self.file, f"{quantity}: {what}", float("inf"), SINGLE)
        expected = torch.from_numpy(np.asarray(self[quantity])).double()
        if found.shape != expected.shape:
            return Comparison(self.file, quantity, float("inf"), SINGLE)
        beyond = (found.detach().double() - expected).abs() - relative * expected.abs()
        worst = float(beyond.max().clamp(min=0)) if beyond.numel() else 0.0
        return Comparison(self.file, quantity, worst, SINGLE)


def compare(
    file: str, quantity: str, found: Tensor | np.ndarray, expected: np.ndarray, tolerance: float
) -> Comparison:
    """Return the largest absolute difference; infinite where shapes differ."""
    array = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    if array.shape != expected.shape:
        return Comparison(file, quantity, float("inf"), tolerance)
    difference = np.abs(array.astype(np.float64) - expected.astype(np.float64))
    return Comparison(file, quantity, float(difference.max(initial=0)), tolerance)


def compare_content(file: str, quantity: str, found: Any, expected: Any) -> Comparison:
    """Return how many leaves of nested plain data differ, such as prompts or labels."""
    return Comparison(file, quantity, float(_differences(found, expected)), EXACT)


def _differences(found: Any, expected: Any) -> int:
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        shared = found.keys() & expected.keys()
        return len(found.keys() ^ expected.keys()) + sum(
            _differences(found[key], expected[key]) for key in shared
        )
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        pairs = zip(found, expected, strict=False)
        return abs(len(found) - len(expected)) + sum(_differences(a, b) for a, b in pairs)
    return int(type(found) is not type(expected) or found != expected)


def _double(value: np.ndarray) -> torch.dtype:
    return torch.float64 if np.issubdtype(np.asarray(value).dtype, np.floating) else torch.int64
