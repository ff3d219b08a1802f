"""Which part of a model each of its parameters, buffers and modules belongs to."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

Member = nn.Module | nn.Parameter
Parts = Mapping[str, Sequence[Member]]
"""Modules and parameters by the name of their part.

What lies inside several members belongs to the smallest of them: `{"encoder": [self.encoder],
"rest": [self]}` says what is in the encoder, and that all else is `rest`.
"""

Piece = TypeVar("Piece", Tensor, nn.Module)


def parameters_of(parts: Parts) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of every part, each once, in the order of the members."""
    owner = _owners(parts, _parameters)
    found: dict[str, dict[int, nn.Parameter]] = {}
    for part, members in parts.items():
        own = (p for member in members for p in _parameters(member) if owner[id(p)] == part)
        found[part] = {id(parameter): parameter for parameter in own}
    return {part: list(parameters.values()) for part, parameters in found.items()}


def parts_of_weights(model: nn.Module, parts: Parts) -> dict[str, str]:
    """Return the part of everything that a checkpoint holds of a model, by its name there.

    Raises:
        ValueError: something is in no part.
    """
    owner = _owners(parts, _tensors)
    weights = model.state_dict(keep_vars=True)
    alone = [name for name, tensor in weights.items() if id(tensor) not in owner]
    if alone:
        raise ValueError(f"{type(model).__name__}.parts() lacks {', '.join(alone[:3])}")
    return {name: owner[id(tensor)] for name, tensor in weights.items()}


def modules_of(parts: Parts, names: Collection[str]) -> Iterator[nn.Module]:
    """Yield the modules of some parts, without those inside them that are of other parts."""
    owner = _owners(parts, _modules)
    for name in names:
        for member in parts[name]:
            yield from (module for module in _modules(member) if owner[id(module)] == name)


def _owners(parts: Parts, inside: Callable[[Member], Iterable[Piece]]) -> dict[int, str]:
    """Return the part of each piece, by its identity: that of the smallest member around it."""
    found = [(part, list(inside(member))) for part, members in parts.items() for member in members]
    # Where members are of one size, the first counts.
    found.sort(key=lambda entry: len(entry[1]))
    owner: dict[int, str] = {}
    for part, pieces in found:
        for piece in pieces:
            owner.setdefault(id(piece), part)
    return owner


def _parameters(member: Member) -> Iterable[nn.Parameter]:
    return [member] if isinstance(member, nn.Parameter) else member.parameters()


def _tensors(member: Member) -> Iterable[Tensor]:
    if isinstance(member, nn.Parameter):
        return [member]
    return [*member.parameters(), *member.buffers()]


def _modules(member: Member) -> Iterable[nn.Module]:
    return [] if isinstance(member, nn.Parameter) else member.modules()
