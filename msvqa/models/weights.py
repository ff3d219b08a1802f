"""Weights that a model takes over: compared with its own name by name, shape by shape."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from msvqa.errors import WeightsError

MAX_NAMES_IN_MESSAGE = 5


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
    """Refuse weights of other names or shapes than the expected ones, or that are no numbers.

    Raises:
        WeightsError: lists them.
    """

    def problems(title: str, names: list[str], show: Callable[[str], str] = str) -> list[str]:
        return [f"{len(names)} {title}: {listed([show(n) for n in names])}"] if names else []

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
    # As float32, which is what the model computes in.
    broken = [n for n in both if not torch.isfinite(given[n].to(torch.float32)).all()]
    if broken:
        raise WeightsError(f"{source} holds values that are no finite numbers: {listed(broken)}")


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def listed(names: list[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - MAX_NAMES_IN_MESSAGE
    return ", ".join(names[:MAX_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
