"""The loop's view of a single process without Ray."""

from collections.abc import Mapping
from pathlib import Path

import torch

from msvqa.engine.checkpoint import checkpoint_name
from msvqa.engine.loop import Saver


class LocalHost:
    """Keeps every checkpoint of the stage."""

    rank = 0

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)

    def latest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint in the folder."""
        found = sorted(self.folder.glob("step-*/checkpoint.json"))
        return found[-1].parent if found else None

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        """Write the checkpoint."""
        save(self.folder / checkpoint_name(save.step))


class StoppingHost(LocalHost):
    """Dies right after a number of checkpoints."""

    def __init__(self, folder: Path, reports: int) -> None:
        super().__init__(folder)
        self.left = reports

    def report(self, numbers: Mapping[str, float], save: Saver) -> None:
        super().report(numbers, save)
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
