"""The faults: each is injected into real processes; what it returns was lost, and must be nothing.

A fault that is survived returns an empty list. One that is not survived raises.
"""

import signal
from collections.abc import Callable

from msvqa.engine.checkpoint import newest_checkpoint
from tests.faults.bench import STAGE, Bench

Fault = Callable[[Bench, str], list[str]]


def terminated(bench: Bench, name: str) -> list[str]:
    """SIGTERM as before a preemption: checkpoint, exit code 143; the same command resumes."""
    recipe = bench.recipe_file(name)
    stage = bench.run(recipe).stage_dir(STAGE)
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    command.kill(signal.SIGTERM)
    code = command.ends()
    assert code == 128 + signal.SIGTERM, f"exit code {code}:\n{command.said()}"
    assert "has written a checkpoint after step" in command.said()
    said = int(command.said().rpartition("after step ")[2].partition(":")[0])
    assert newest_checkpoint(stage).name == f"step-{said:08d}"
    bench.train(recipe).ends_well()
    return bench.lost(recipe)


FAULTS: dict[str, Fault] = {"terminated": terminated}
