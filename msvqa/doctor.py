"""Doctor: is this machine ready, is a recipe sound, and which videos and questions are not."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msvqa.data import DATASETS
from msvqa.errors import DataError, MSVQAError, RecipeError
from msvqa.recipe import ClipsConfig, DataConfig, Recipe, parse_data
from msvqa.run import load_recipe
from msvqa.sections import resolve
from msvqa.storage import is_remote

if TYPE_CHECKING:
    from msvqa.data.dataset import Dataset
    from msvqa.data.schema import Problem
    from msvqa.data.video import Probe

Status = Literal["ok", "warn", "fail"]
GIB = 1024**3
FREE_DISK_BYTES = 10 * GIB
"""What a clip store of some thousand short videos takes."""
SHARED_MEMORY_BYTES = 2 * GIB
MAX_WORKERS = 16
HARMLESS_KINDS = ("partial", "duplicate_question", "two_files", "shared_file", "two_splits")
"""Problems that preparing and training go on with; all others count as failures."""
ROW_KINDS = ("invalid_row", "empty_text", "duplicate_id", "duplicate_question")
"""Problems of a row of an annotation file, not of a video."""
LAYOUTS = (
    ("msrvtt_qa", ("train_qa.json", "TrainValVideo")),
    ("msvd_qa", ("train_qa.json", "youtube_mapping.txt")),
)
"""Published layouts and the entries that a folder with one has."""
WRITTEN = ("runs", "data.prepared", "clips.store", "features.store")
"""Paths in a recipe that need not exist yet."""


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
            raise DataError(f"{file} cannot be written: {error}") from None
        self.problems_file = file


def doctor(
    recipe: str | Path | None = None,
    data: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    timeout_s: float = 60.0,
    speed: bool = False,
) -> Report:
    """Check this machine and, where given, a recipe and a folder with videos.

    Args:
        recipe: recipe file; it also says which data set `data` holds.
        data: folder with a data set, or with nothing but videos.
        overrides: `key=value` fields of the recipe to change.
        timeout_s: longest time for one video.
        speed: also measure how fast this machine decodes and computes.

    Raises:
        DataError: no such folder on a disk.
    """
    if data is not None and is_remote(data):
        raise DataError(f"--data reads every video to its end: copy {data} to a disk, or mount it")
    report = Report([check() for check in ENVIRONMENT])
    loaded = _load(recipe, overrides, report) if recipe is not None else None
    if data is not None:
        _check_data(Path(data), loaded, timeout_s, report)
    if speed:
        report.checks += speed_checks(Path(data) if data is not None else None, loaded)
    return report


# The machine


def _python() -> Check:
    good = sys.version_info >= (3, 10)
    return Check(
        name="python",
        status="ok" if good else "fail",
        detail=f"{platform.python_version()} at {sys.executable}",
        advice="" if good else "install Python 3.10 or newer",
    )


def _torch() -> Check:
    try:
        import torch
        import torchvision  # fails where it was built for another torch
    except (ImportError, RuntimeError, OSError) as error:
        advice = "install matching versions of torch and torchvision"
        return Check(name="torch", status="fail", detail=str(error), advice=advice)
    detail = f"{torch.__version__}, torchvision {torchvision.__version__}"
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        names = ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GiB)" for gpu in gpus)
        return Check(name="torch", status="ok", detail=f"{detail}; {len(gpus)} GPUs: {names}")
    if shutil.which("nvidia-smi"):
        advice = "the driver is too old for this torch, or CUDA_VISIBLE_DEVICES hides the GPUs"
        return Check(name="torch", status="warn", detail=f"{detail}; no GPU usable", advice=advice)
    return Check(name="torch", status="ok", detail=f"{detail}; no GPU, the CPU is used")


def _ray() -> Check:
    advice = "pip install 'ray[default,data,train,tune]>=2.60,<2.64'"
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        return Check(name="ray", status="fail", detail="not installed", advice=advice)
    if (2, 60) <= tuple(int(part) for part in version.split(".")[:2]) < (2, 64):
        return Check(name="ray", status="ok", detail=version)
    return Check(name="ray", status="warn", detail=f"{version} was not tested", advice=advice)


def _decoders() -> Check:
    found, absent = [], []
    for package in ("av", "decord"):
        try:
            importlib.import_module(package)
            found.append(f"{package} {metadata.version(package)}")
        except (ImportError, OSError) as error:
            absent.append(f"{package}: {error}")
    status: Status = "ok" if not absent else "fail" if absent[0].startswith("av:") else "warn"
    advice = "pip install av decord" if absent else ""
    return Check(name="decoders", status=status, detail=", ".join([*found, *absent]), advice=advice)


def _processors() -> Check:
    usable, quota = len(os.sched_getaffinity(0)), _cgroup("cpu.max")
    detail = f"{usable} of {os.cpu_count()} usable"
    limit, _, period = quota.partition(" ")
    if limit.isdigit() and int(limit) < usable * int(period):
        allowed = int(limit) / int(period)
        advice = f"set scaling.data_workers and scaling.workers for {allowed:g} CPUs"
        detail += f", limited to the time of {allowed:g}"
        return Check(name="CPUs", status="warn", detail=detail, advice=advice)
    return Check(name="CPUs", status="ok", detail=detail)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup("memory.max")
    total = min(total, int(limit)) if limit.isdigit() else total
    low = total < 4 * GIB
    return Check(
        name="memory",
        status="warn" if low else "ok",
        detail=f"{total / GIB:.1f} GiB",
        advice="lower scaling.workers and scaling.data_workers to 1" if low else "",
    )


def _cgroup(name: str) -> str:
    """Return a limit that a container sets; empty where there is none."""
    file = Path("/sys/fs/cgroup") / name
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""


def _shared_memory() -> Check:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check(name="/dev/shm", status="warn", detail="absent; Ray uses slower files")
    size = shutil.disk_usage(folder).free
    low = size < SHARED_MEMORY_BYTES
    return Check(
        name="/dev/shm",
        status="warn" if low else "ok",
        detail=f"{size / GIB:.1f} GiB free",
        advice="start the container with --shm-size=4g" if low else "",
    )


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    low = free < FREE_DISK_BYTES
    return Check(
        name="disk",
        status="warn" if low else "ok",
        detail=f"{free / GIB:.1f} GiB free in {Path.cwd()}",
        advice="stores of clips take gigabytes; set data.prepared and runs to a larger disk"
        if low
        else "",
    )


def _writing() -> Check:
    for folder in dict.fromkeys([Path.cwd(), Path(tempfile.gettempdir())]):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            return Check(
                name="writing",
                status="fail",
                detail=f"{folder}: {error.strerror}",
                advice="go to a folder of your own, or set TMPDIR",
            )
    return Check(name="writing", status="ok", detail="working and temporary folder can be written")


ENVIRONMENT: tuple[Callable[[], Check], ...] = (
    *(_python, _torch, _ray, _decoders, _processors),
    *(_memory, _shared_memory, _disk, _writing),
)


# The recipe


def _load(path: str | Path, overrides: Sequence[str], report: Report) -> Recipe | None:
    try:
        recipe = load_recipe(path, overrides)
    except RecipeError as error:
        report.checks.append(Check(name="recipe", status="fail", detail=str(error)))
        return None
    from msvqa.train import check

    try:
        check(recipe)
        stages = ", ".join(stage.name for stage in recipe.stages)
        detail = f"{path} is sound; stages: {stages}"
        report.checks.append(Check(name="recipe", status="ok", detail=detail))
    except MSVQAError as error:
        report.checks.append(Check(name="recipe", status="fail", detail=str(error)))
    absent = [f"{key}: {path}" for key, path in _read_by(recipe) if not Path(path).exists()]
    if absent:
        advice = "correct the path, or put the file there"
        detail = f"not there: {'; '.join(absent)}"
        report.checks.append(Check(name="files", status="warn", detail=detail, advice=advice))
    return recipe


def _read_by(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the files and folders that a recipe reads, with their keys."""
    from msvqa.data.dataset import Dataset

    generated = resolve(recipe.data.name, DATASETS, "data set").generate is not Dataset.generate
    made_by_us = {*WRITTEN, "data.root"} if generated else WRITTEN
    yield from ((key, path) for key, path in _paths(recipe.to_dict()) if key not in made_by_us)


def _paths(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the absolute paths in a section, with their keys."""
    entries = section.items() if isinstance(section, dict) else enumerate(section)
    for key, value in entries:
        place = f"{prefix}{key}"
        if isinstance(value, (dict, list)):
            yield from _paths(value, f"{place}.")
        elif isinstance(value, str) and value.startswith("/"):
            yield place, value


# The data


def _check_data(folder: Path, recipe: Recipe | None, timeout_s: float, report: Report) -> None:
    config = recipe.data if recipe is not None else _recognise(folder)
    if config is None:
        files = _video_files(folder)
        if not files:
            raise DataError(f"{folder}: no videos and no data set in a layout that is known")
        report.checks.append(
            Check(
                name="annotations",
                status="warn",
                detail=f"none recognised in {folder}: only its videos are checked",
                advice="msvqa doctor RECIPE --data DIR checks the annotations that RECIPE names",
            )
        )
    else:
        from msvqa.data.dataset import open_dataset
        from msvqa.data.problems import find_annotation_problems

        dataset = open_dataset(config.model_copy(update={"root": str(folder.absolute())}))
        report.problems += find_annotation_problems(dataset)
        files = _annotated_files(dataset)
        report.checks.append(_annotation_check(config.name, report.problems))
    report.probes = probe_videos(folder, files, timeout_s)
    report.problems += [
        problem for path, found in report.probes.items() if (problem := _content(path, found))
    ]
    report.checks.append(_video_check(folder, report.probes))


def _recognise(folder: Path) -> DataConfig | None:
    """Return the data section for a folder in a published layout."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    for name, entries in LAYOUTS:
        if all((folder / entry).exists() for entry in entries):
            return parse_data(name, root=str(folder), allow_missing=True)
    return None


def _video_files(folder: Path) -> list[str]:
    from msvqa.data.dataset import VIDEO_SUFFIXES

    files = (file for file in folder.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
    return sorted(str(file.relative_to(folder)) for file in files if file.is_file())


def _annotated_files(dataset: "Dataset") -> list[str]:
    """Return the files of all videos that questions are about; broken annotations name none."""
    from msvqa.data.problems import group_by_video

    try:
        videos = group_by_video(dataset, dataset.read().rows)
    except DataError:
        return []
    return sorted({video.file.path for video in videos if video.file.path})


def probe_videos(folder: Path, files: Sequence[str], timeout_s: float) -> dict[str, "Probe"]:
    """Read every file from end to end, in child processes that may hang or die.

    Returns:
        What was found, by name, in the order of `files`.
    """
    from msvqa.data.video import IsolatedDecoder

    workers = max(1, min(len(os.sched_getaffinity(0)), MAX_WORKERS, len(files)))

    def read(share: Sequence[str]) -> list["Probe"]:
        decoder = IsolatedDecoder(timeout_s, pixels=False)
        try:
            return [_probe(decoder, folder / name) for name in share]
        finally:
            decoder.close()

    shares = [files[worker::workers] for worker in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        found = list(threads.map(read, shares))
    return {name: found[n % workers][n // workers] for n, name in enumerate(files)}


def _probe(decoder: Any, path: Path) -> "Probe":
    found: Probe = decoder.probe(path)
    # Of a disk that does not answer nothing more is asked here, where no time limit holds.
    if found.outcome != "timeout" and path.stat().st_size == 0:
        found = replace(found, problem=f"{path}: the file is empty (0 bytes)")
    return found


def _content(path: str, found: "Probe") -> "Problem | None":
    from msvqa.data.schema import Problem

    if found.outcome == "ok":
        return None
    frames = f" ({found.num_frames} frames)" if found.num_frames else ""
    return Problem(kind=found.outcome, path=path, detail=f"{found.problem}{frames}")


def _annotation_check(name: str, problems: Sequence["Problem"]) -> Check:
    failing = [problem for problem in problems if problem.kind not in HARMLESS_KINDS]
    status: Status = "fail" if failing else "warn" if problems else "ok"
    return Check(
        name="annotations",
        status=status,
        detail=f"{name}: {len(problems)} problems, {len(failing)} of them must be put right",
        advice=_first_details(failing or problems),
    )


def _video_check(folder: Path, probes: dict[str, "Probe"]) -> Check:
    from msvqa.data.video import OUTCOMES

    if not probes:
        return Check(name="videos", status="warn", detail=f"none in {folder}")
    outcomes = [found.outcome for found in probes.values()]
    counts = [f"{outcomes.count(o)} {o}" for o in OUTCOMES if o in outcomes]
    bad = any(outcome not in ("ok", "partial") for outcome in outcomes)
    return Check(
        name="videos",
        status="fail" if bad else "warn" if "partial" in outcomes else "ok",
        detail=f"{len(probes)} in {folder}: {', '.join(counts)}",
        advice="replace these files; training leaves them out with data.allow_missing"
        if bad
        else "",
    )


def _first_details(problems: Sequence["Problem"], shown: int = 3) -> str:
    more = [f"and {len(problems) - shown} more"] if len(problems) > shown else []
    return "\n  ".join([*(problem.detail for problem in problems[:shown]), *more])


# The speed


def speed_checks(folder: Path | None, recipe: Recipe | None) -> list[Check]:
    """Measure, and say which side limits and how many decode workers to use."""
    from msvqa.engine.speed import measure

    clips = recipe.clips if recipe is not None else ClipsConfig()
    videos = [folder / name for name in _video_files(folder)] if folder is not None else []
    speed = measure(clips, videos)
    gemm = ", ".join(f"{kind} {flops / 1e12:.2f}" for kind, flops in speed.gemm_flops.items())
    computing = (
        f"{speed.device}: matrix product {gemm} TFLOP/s, ResNet-101 at 224 px "
        f"{speed.encoder_flops / 1e12:.2f} TFLOP/s = {speed.computed_per_s:.3g} videos/s"
    )
    decoding = (
        f"{speed.decode_s:.3f} s for one video on one core, "
        f"{speed.decoded_per_s:.3g} videos/s on {speed.cpus} cores"
    )
    return [
        Check(name="computing", status="ok", detail=computing),
        Check(name="decoding", status="ok", detail=decoding),
        Check(
            name="sizing",
            status="ok",
            detail=f"{speed.limit} limits the extraction of features",
            advice=f"scaling.data_workers={speed.decode_workers}",
        ),
    ]
