"""What the doctor found: checks with a status, and problems by name."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msvqa.errors import DataError

if TYPE_CHECKING:
    from msvqa.data.readers import Probe
    from msvqa.data.schema import Problem

Status = Literal["ok", "warn", "fail"]
ROW_KINDS = ("invalid_row", "empty_text", "duplicate_id", "duplicate_question")
"""Problems of a row of an annotation file, not of a video."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Status
    detail: str
    advice: str = ""
    """What to do about it."""


@dataclass
class Report:
    """Everything that the doctor found."""

    checks: list[Check] = field(default_factory=list)
    problems: list["Problem"] = field(default_factory=list)
    problems_file: Path | None = None
    probes: dict[str, "Probe"] = field(default_factory=dict)
    """What reading each video found, by path relative to the data folder."""

    @property
    def failed(self) -> bool:
        """Whether something has to be put right."""
        return any(check.status == "fail" for check in self.checks)

    def problems_by_kind(self) -> dict[str, list[str]]:
        """Return the names of what is affected (file, video or row) for each kind of problem."""
        names: dict[str, list[str]] = defaultdict(list)
        for problem in self.problems:
            row = f" row {problem.row}" if problem.kind in ROW_KINDS else ""
            names[problem.kind].append(f"{problem.path or problem.video_id}{row}")
        return dict(names)

    def write_problems(self, file: Path) -> None:
        """Write the table of all problems.

        Raises:
            DataError: it cannot be written.
        """
        from msvqa.data.problems import write_problems

        try:
            write_problems(self.problems, file)
        except OSError as error:
            raise DataError(
                f"{file} cannot be written ({error.strerror or error}): name another place, --out"
            ) from None
        self.problems_file = file
