"""Runs rows of the benchmark one after another and writes what they found."""

import datetime
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import measure
from benchmarks.measure import Count, Fact, Ratio
from benchmarks.rows.setting import Finding, Setting
from benchmarks.rows.table import Row


@dataclass(frozen=True)
class Options:
    """How rows are run."""

    profile: str
    rounds: int
    is_tiny: bool = False
    questions: Path | None = None
    """See `Setting.questions`."""


@dataclass
class Outcome:
    """What rows found, and which of them could not be measured."""

    findings: list[Finding] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """Whether every row was measured and every count is exact."""
        wrong = [f for f in self.findings if isinstance(f, Count) and f.verdict == "WRONG"]
        return not wrong and not self.failures


def run(rows: Sequence[Row], options: Options, out: Path | None) -> int:
    """Run rows, print their table, and write it; return 1 where a count is wrong.

    Args:
        rows: what to measure.
        options: how.
        out: folder of table and JSON; None: they are not written.
    """
    device = torch.device("cuda" if options.profile == "gpu" and _has_gpu() else "cpu")
    header = machine(device)
    outcome = Outcome()
    for together in _by_measurement(rows):
        _run_measurement(together, options, device, outcome)
    table = as_table(rows, header, options, outcome)
    sys.stdout.write(table)
    if out is not None:
        write(out, table, header, options, outcome)
    return 0 if outcome.is_right else 1


def _has_gpu() -> bool:
    if not torch.cuda.is_available():
        sys.stderr.write("There is no GPU: the profile runs on the processor\n")
    return torch.cuda.is_available()


def _by_measurement(rows: Sequence[Row]) -> list[list[Row]]:
    """Return rows in their order, those together that one measurement gives."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.measured_by, []).append(row)
    return list(grouped.values())


def _run_measurement(
    rows: list[Row], options: Options, device: torch.device, outcome: Outcome
) -> None:
    names = ", ".join(row.id for row in rows)
    sys.stderr.write(f"{names} ...\n")
    start = time.perf_counter()
    try:
        findings = measured(rows, options, device)
    except Exception as error:  # the other rows still count, and the run fails
        traceback.print_exc()
        outcome.failures[names] = f"{type(error).__name__}: {error}".splitlines()[0]
        return
    outcome.findings += findings
    outcome.seconds[names] = round(time.perf_counter() - start, 1)


def measured(rows: Sequence[Row], options: Options, device: torch.device) -> list[Finding]:
    """Return what one measurement found of some of the rows that it gives."""
    with tempfile.TemporaryDirectory(prefix="msvqa-bench-") as name:
        setting = Setting(
            folder=Path(name), rounds=options.rounds, is_tiny=options.is_tiny, device=device,
            questions=options.questions,
        )  # fmt: skip
        with one_core(exempt=rows[0].needs_cores or device.type == "cuda"):
            findings = rows[0].measurement()(setting)
    ids = {row.id for row in rows}
    return [finding for finding in findings if finding.name.partition(" ")[0] in ids]


@contextmanager
def one_core(*, exempt: bool) -> Iterator[None]:
    """Keep this process, and the children it starts, on one core with one thread for a while.

    Args:
        exempt: leave it as it is: processes that work together need several, a GPU is none.
    """
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    if not exempt:
        measure.pin_to_one_core()
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on."""
    with one_core(exempt=False):
        found = measure.machine()
    if device.type != "cuda":
        return found
    own = {n: round(flops / 1e12, 1) for n, flops in measure.gemm_flops(device).items()}
    return found | {"gpu": torch.cuda.get_device_name(device), "gpu_gemm_tflops": own}


def as_table(
    rows: Sequence[Row], header: dict[str, Any], options: Options, outcome: Outcome
) -> str:
    """Return everything as Markdown."""
    ids = " ".join(row.id for row in rows)
    sizes = ", tiny sizes, of which no time says anything" if options.is_tiny else ""
    lines = [
        f"# Benchmark, profile {options.profile}", "",
        f"`python -m benchmarks {ids} --profile {options.profile}`, "
        f"{options.rounds} rounds{sizes}, with {json.dumps(header)}", "",
        "| ratio or count | median | quartiles | target | verdict |", "|---|---|---|---|---|",
        *(_line(f, options) for f in outcome.findings if not isinstance(f, Fact)),
        *(f"| {names} | | | | not measured: {why} |" for names, why in outcome.failures.items()),
        "", "| fact | value |", "|---|---|",
        *(f"| {f.name} | {f.value} |" for f in outcome.findings if isinstance(f, Fact)),
        *(f"| seconds for {names} | {took} |" for names, took in outcome.seconds.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(finding: Ratio | Count, options: Options) -> str:
    if isinstance(finding, Count):
        value = f"{finding.value:.4g}"
        return f"| {finding.name} | {value} | | {finding.target} | {finding.verdict} |"
    spread = f"{finding.low:.3g} to {finding.high:.3g}"
    verdict = "" if options.is_tiny else finding.verdict
    return f"| {finding.name} | {finding.median:.3g} | {spread} | {finding.target} | {verdict} |"


def write(
    folder: Path, table: str, header: dict[str, Any], options: Options, outcome: Outcome
) -> Path:
    """Write table and JSON, named by date and profile; return the path of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{datetime.date.today().isoformat()}-bench-{options.profile}.md"
    file.write_text(table, encoding="utf-8")
    data = {
        "machine": header,
        "rounds": options.rounds,
        "tiny": options.is_tiny,
        "findings": [_as_data(finding) for finding in outcome.findings],
        "failures": outcome.failures,
        "seconds": outcome.seconds,
    }
    file.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def _as_data(finding: Finding) -> dict[str, Any]:
    verdict = {} if isinstance(finding, Fact) else {"verdict": finding.verdict}
    return {"kind": type(finding).__name__.lower(), **asdict(finding), **verdict}
