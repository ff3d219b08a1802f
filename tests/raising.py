"""Every error of the package, and parts of a recipe that raise the one that they are told."""

import inspect
from typing import Any

import torch

from msvqa.errors import MSVQAError
from msvqa.models.encoders.resnet import ResNet
from msvqa.objectives.answering import Answering

WORDS = "of the moon no data is known"
OF_MACHINES = {
    "disk": lambda: OSError(28, f"No space left on device, {WORDS}", "/moon"),
    "memory": lambda: MemoryError(f"Unable to allocate 1 TiB, {WORDS}"),
    "gpu": lambda: torch.OutOfMemoryError(f"CUDA out of memory, {WORDS}"),
    "module": lambda: ModuleNotFoundError(f"No module named 'moon', {WORDS}"),
}
"""What any program may meet, by a name."""


def subclasses(kind: type) -> list[type]:
    """Return a class of this package and all that are derived from it in the package."""
    below = [one for child in kind.__subclasses__() for one in subclasses(child)]
    return [one for one in (kind, *below) if one.__module__.startswith("msvqa.")]


CLASSES = {kind.__name__: kind for kind in subclasses(MSVQAError)}
ALL = [*CLASSES, *OF_MACHINES]


def made(name: str) -> Exception:
    """Return an error with `WORDS` in it, made by the constructor of its class."""
    if name in OF_MACHINES:
        return OF_MACHINES[name]()
    _, *parameters = inspect.signature(CLASSES[name].__init__).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    values: list[Any] = [[WORDS] if "Sequence" in str(p.annotation) else WORDS for p in needed]
    return CLASSES[name](*values or [WORDS])


class RaisingEncoder(ResNet):
    """Raises when an extraction worker loads its weights."""

    class Config(ResNet.Config):
        """Fields of the encoder that it stands for."""

        error: str

    def load_pretrained(self) -> None:
        """Raise the error."""
        raise made(self.config.error)


class RaisingObjective(Answering):
    """Raises when it trains, or when it is asked."""

    class Config(Answering.Config):
        """Fields of the objective that it stands for."""

        error: str

    def loss(self, batch):
        """Raise the error."""
        raise made(self.config.error)

    def predict(self, batch):
        """Raise the error."""
        raise made(self.config.error)
