"""Lines of progress: one for each long job."""

import shutil
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msvqa.engine.sweep import Trial


NUMBERS_SHOWN = 4
"""Of a validation; all are in metrics.jsonl."""


class ProgressLines:
    """One line for each long job: rewritten on a terminal, repeated now and then in a log."""

    def __init__(self, log_every_s: float = 15.0) -> None:
        self._rewrites = sys.stdout.isatty()
        self._log_every_s = log_every_s
        self._shown, self._shown_at, self._validation = "", float("-inf"), ""

    def on_stage(self, stage: str, what: str) -> None:
        """Say that a stage `starts`, `resumes` or `is finished`."""
        self._validation = ""
        self.say(f"stage {stage} {what}")

    def on_extract(self, done: int, total: int, rejected: int) -> None:
        """Show how many videos are extracted."""
        words = f", {rejected} rejected" if rejected else ""
        self._show(f"extract: {done} of {total} videos{words}", always=done == total)

    def on_count(self, what: str, done: int, total: int) -> None:
        """Show how much of something is done."""
        self._show(f"{what}: {done} of {total}", always=done == total)

    def on_row(self, row: Mapping[str, Any]) -> None:
        """Show a row of metrics.jsonl."""
        numbers = {
            key: value
            for key, value in row.items()
            if isinstance(value, float) and key not in ("time_s", "lr")
        }
        if row["kind"] == "validation":
            shown = [f"{name} {value:.4g}" for name, value in numbers.items()][:NUMBERS_SHOWN]
            if len(numbers) > NUMBERS_SHOWN:
                shown.append(f"{len(numbers) - NUMBERS_SHOWN} more")
            shown += [f"{name} is not finite" for name, value in row.items() if value is None]
            line = f"{row['stage']}  step {row['step']}  validation: {', '.join(shown)}"
            self._validation = f"  validation at step {row['step']}: {', '.join(shown)}"
        else:
            line = (
                f"{row['stage']}  step {row['step']}/{row['steps']}  loss {numbers['loss']:.4g}  "
                f"{numbers['questions_per_s']:.0f} examples/s  "
                f"waiting {numbers['waiting']:.0%}  {timedelta(seconds=int(row['eta_s']))} left"
                f"{self._validation}"
            )
        self._show(line, always=row["kind"] == "validation")

    def on_trial(self, trial: "Trial") -> None:
        """Show how far a trial of a search is."""
        value = "" if trial.value is None else f": {trial.value:.4f}"
        line = f"{trial.name}{value} after {trial.epochs} epochs, {trial.state}"
        self._show(line, always=trial.state != "running")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.close()
        print(line, flush=True)

    def close(self) -> None:
        """Leave the line that is shown on the terminal."""
        if self._shown and self._rewrites:
            print()
        self._shown, self._shown_at = "", float("-inf")

    def _show(self, line: str, *, always: bool) -> None:
        if self._rewrites:
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f"\r{line:<{len(self._shown)}}", end="", flush=True)
            self._shown = line
        elif always or time.monotonic() - self._shown_at >= self._log_every_s:
            print(line, flush=True)
            self._shown_at = time.monotonic()
