"""Is this machine ready: Python, libraries, processors, memory, disks."""

import importlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from msvqa.checks.report import Check, Status
from msvqa.data.nvdec_needs import LIBRARY, lacking
from msvqa.errors import ClusterError

GIB = 1024**3
FREE_DISK_BYTES = 10 * GIB
"""What a clip store of some thousand short videos takes."""
SHARED_MEMORY_BYTES = 2 * GIB


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
    # Only for those who ask for it, so nothing is wrong without it.
    problem = lacking()
    nvdec = (
        f"no nvdec ({problem})" if problem else f"nvdec by {LIBRARY} {metadata.version(LIBRARY)}"
    )
    detail = ", ".join([*found, *absent, nvdec])
    return Check(name="decoders", status=status, detail=detail, advice=advice)


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
    for find in (os.getcwd, tempfile.gettempdir):
        folder = find.__name__
        try:
            folder = find()
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


def _starting_ray() -> Check:
    from msvqa.engine import cluster, starting

    try:
        if cluster.joins_cluster():
            address = os.environ["RAY_ADDRESS"]
            starting.check_address(address)
            return Check(name="start of Ray", status="ok", detail=f"joins RAY_ADDRESS={address}")
        places = starting.find_places()
    except ClusterError as error:
        return Check(name="start of Ray", status="fail", detail=str(error))
    return Check(
        name="start of Ray",
        status="warn" if places.instead else "ok",
        detail=f"in {places.folder}",
        advice=places.instead,
    )


ENVIRONMENT: tuple[Callable[[], Check], ...] = (
    *(_python, _torch, _ray, _decoders, _processors),
    *(_memory, _shared_memory, _disk, _writing, _starting_ray),
)
