"""Weight files: read without running code from them, checked name by name."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msvqa.errors import WeightsError

MAX_NAMES_IN_MESSAGE = 20


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a `.pth` file, bare or below `state_dict`, without `module.`.

    Raises:
        WeightsError: no such file, not a weights file, or it holds other objects than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).split("\n", 1)[0]
        raise WeightsError(f"{path} is not a file of weights: {reason}") from None
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no state dict (names with tensors)")
    strange = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise WeightsError(f"{path} holds values that are not tensors: {_listed(strange)}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: str, ignored: tuple[str, ...] = ()
) -> None:
    """Load a state dict whose names and shapes must be exactly the module's.

    Counters of batch norm may be absent, old files have none.

    Args:
        module: takes the weights.
        state: the weights by name.
        source: what the weights are called in messages.
        ignored: beginnings of names that are dropped, for example a classifier's.

    Raises:
        WeightsError: lists every missing and unknown name and every wrong shape.
    """
    given = {
        name: value for name, value in state.items() if not name.startswith(ignored or ("\0",))
    }
    own = module.state_dict()
    check_names(given, {name: tuple(value.shape) for name, value in own.items()}, source)
    counters = {name: value for name, value in own.items() if _is_counter(name)}
    module.load_state_dict(counters | given)


def check_names(
    given: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Refuse weights whose names or shapes are not the expected ones, listing them."""

    def problems(title: str, names: list[str], show: Callable[[str], str] = str) -> list[str]:
        return [f"{len(names)} {title}: {_listed([show(n) for n in names])}"] if names else []

    def shapes(name: str) -> str:
        return f"{name} {tuple(given[name].shape)} instead of {expected[name]}"

    missing = [n for n in expected if n not in given and not _is_counter(n)]
    unknown = [n for n in given if n not in expected]
    both = [n for n in given if n in expected]
    wrong = [n for n in both if tuple(given[n].shape) != expected[n]]
    found = [
        *problems("missing", missing),
        *problems("unknown", unknown),
        *problems("of another shape", wrong, shapes),
    ]
    if found:
        raise WeightsError(f"{source} does not fit the model; " + "; ".join(found))


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _listed(names: list[str]) -> str:
    more = len(names) - MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
