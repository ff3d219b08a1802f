"""V6: questions of MVBench through our runner, against the model alone on the same frames."""

import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Fact, ratio
from benchmarks.rows.setting import Costs, Finding, Setting
from benchmarks.rows.small_chat import lessons, objective_of, recipe_of
from msvqa.mvbench.adapters.adapter import Adapter, Source
from msvqa.mvbench.lessons import MINI
from msvqa.mvbench.prompts import Prompt
from msvqa.mvbench.run import Plan, run
from msvqa.objectives.generation import Generation
from msvqa.prepare import prepare

# Legend: T frames.

FRAMES, TOKENS = 16, 32


class Small(Adapter):
    """A small VideoChat2 that writes answers of one length, and remembers what it was asked."""

    def __init__(self, objective: Generation, tokens: int) -> None:
        super().__init__(Source(model="small"))
        self._objective = objective
        end = objective.chat.tokenizer.convert_tokens_to_ids("###")
        self._ends = {
            "max_new_tokens": tokens, "min_new_tokens": tokens, "suppress_tokens": [end],
        }  # fmt: skip
        self.asked: list[tuple[np.ndarray, Prompt]] = []

    def generate(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return what the model says of frames (T, H, W, 3)."""
        self.asked.append((frames, prompt))
        return self.answer(frames, prompt)

    def answer(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return the same, and remember nothing."""
        batch = {"frames": torch.from_numpy(frames)[None], "video_index": torch.zeros(1).long()}
        conversation = self._objective.conversation(prompt)
        (text,) = self._objective.respond(batch, [conversation], **self._ends)
        return text


def questions(setting: Setting) -> list[Finding]:
    """Return V6: seconds of the model alone over those of a whole run, result file included.

    Those of the processor are of the process that has the model alone; clips are decoded elsewhere.
    """
    recipe, root = recipe_of(setting), lessons(setting) / MINI
    torch.use_deterministic_algorithms(False)
    objective = objective_of(recipe, prepare(recipe.data)).eval()
    model = Small(objective, setting.size(TOKENS, 4))
    files = (setting.folder / f"{number}.jsonl" for number in itertools.count())
    # A first run, of which the frames are kept for the model alone.
    _run(model, root, next(files))
    asked = list(model.asked)

    def alone() -> None:
        for frames, prompt in asked:
            model.answer(frames, prompt)

    walls: Costs = {"alone": [], "ours": []}
    works = {"alone": alone, "ours": lambda: _run(model, root, next(files))}
    costs = setting.measure(
        {name: partial(_timed, work, walls[name]) for name, work in works.items()},
        time.process_time,
    )
    walls = {name: found[1:] for name, found in walls.items()}
    rate = len(asked) / min(walls["ours"])
    title = "V6 questions per second, ours / the model alone on the same frames"
    return [
        ratio(f"{title}, of its processor", costs, "alone", "ours", ">= 0.9"),
        ratio(f"{title}, by the clock", walls, "alone", "ours", ">= 0.9"),
        Fact("V6 questions per second, fastest", f"{rate:.1f}, {len(asked)} questions"),
    ]  # fmt: skip


def _timed(work: Callable[[], object], seconds: list[float]) -> None:
    start = time.perf_counter()
    work()
    seconds.append(time.perf_counter() - start)


def _run(model: Small, root: Path, out: Path) -> None:
    model.asked.clear()
    run(model, Plan(root=str(root), out=out, frames=FRAMES, size_px=32))
