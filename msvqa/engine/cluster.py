"""The Ray cluster: connecting to it, and fitting what a recipe asks for to what there is."""

import logging
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, TextIO

from msvqa.descriptors import hold_standard, outlet
from msvqa.engine.starting import (
    Places,
    check_address,
    child_processes,
    find_places,
    spare_loopback_from_proxies,
    unreachable,
)
from msvqa.engine.unwrapping import user_error
from msvqa.errors import ClusterError, MSVQAError
from msvqa.machine import name_user
from msvqa.recipe import ScalingConfig

# Before ray is imported: nothing is sent anywhere, no bars beside our own lines, and a trainer that
# looks at its workers more than once in two seconds, which takes each of them 2 ms.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # After this long without room Ray Train looks again what there is: it may count a lost node.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}.items():
    os.environ.setdefault(_name, _value)

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 1_000_000_000
START_ATTEMPTS = 3
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Whether a process looks for nodes that are about to be taken away."""

_own = threading.Event()
"""Set while a cluster runs that this process has started and will stop."""


@dataclass(frozen=True)
class Resources:
    """What a cluster has in all."""

    cpus: float
    gpus: float
    nodes: tuple["Resources", ...] = ()
    """What each node has, where they are known one by one; empty: one node has all."""

    def room_for(self, cpus: float, gpus: float) -> int:
        """Return how many processes fit that each need so much on a single node."""
        if self.nodes:
            return sum(node.room_for(cpus, gpus) for node in self.nodes)
        room = int(self.cpus / cpus + 1e-6)
        if 0 < gpus < 1:
            # A share lies on one GPU.
            return min(room, int(self.gpus) * int(1 / gpus + 1e-6))
        return min(room, int(self.gpus / gpus + 1e-6)) if gpus else room

    def largest_node(self, *, by_gpus: bool) -> "Resources":
        """Return what the largest node has."""
        nodes = self.nodes or (self,)
        return max(nodes, key=lambda n: (n.gpus, n.cpus) if by_gpus else (n.cpus, n.gpus))

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True)
class Placement:
    """What the workers of a training stage get."""

    workers: int
    """At most so many."""
    cpus_per_worker: float
    gpus_per_worker: float
    fewest: int | None = None
    """Where nodes may come and go, at least so many; null: `workers`, neither more nor fewer."""

    def __str__(self) -> str:
        fewest = "" if self.fewest is None else f"{self.fewest} to "
        return (
            f"{fewest}{self.workers} workers x ({self.cpus_per_worker:g} CPUs, "
            f"{self.gpus_per_worker:g} GPUs)"
        )

    @property
    def backend(self) -> str:
        """NCCL refuses two workers on one GPU; gloo serves those, and CPUs."""
        return "nccl" if self.gpus_per_worker >= 1 else "gloo"


def place(scaling: ScalingConfig, resources: Resources, *, data_cpus: float = 0) -> Placement:
    """Return what each training worker gets.

    Args:
        scaling: what the recipe asks for; of a range of workers the fewest must fit.
        resources: what there is.
        data_cpus: CPUs that must stay free for decoding while training runs.

    Raises:
        ClusterError: the recipe asks for more than there is; says both.
    """
    fewest, most = scaling.worker_counts[0], scaling.worker_counts[-1]
    gpus = scaling.gpus_per_worker
    if gpus is None:
        gpus = gpu_share(fewest, resources.gpus)
    cpus_needed = fewest * scaling.cpus_per_worker + data_cpus
    gpus_needed = fewest * gpus
    if cpus_needed > resources.cpus + 1e-6 or gpus_needed > resources.gpus + 1e-6:
        spare = f" + {data_cpus:g} CPUs for decoding" if data_cpus else ""
        raise ClusterError(
            f"scaling asks for {fewest} workers x ({scaling.cpus_per_worker:g} CPUs, "
            f"{gpus:g} GPUs){spare} = {cpus_needed:g} CPUs and {gpus_needed:g} GPUs, "
            f"but there are {resources}: lower scaling.workers, scaling.cpus_per_worker or "
            "scaling.gpus_per_worker, or add nodes"
        )
    room = resources.room_for(scaling.cpus_per_worker, gpus)
    if room < fewest:
        raise ClusterError(
            f"scaling asks for {fewest} workers, and each needs {scaling.cpus_per_worker:g} CPUs "
            f"and {gpus:g} GPUs on one node: there is room for {room} of them, since the largest "
            f"of {len(resources.nodes) or 1} nodes has {resources.largest_node(by_gpus=gpus > 0)}; "
            "lower scaling.cpus_per_worker or scaling.gpus_per_worker, or add larger nodes"
        )
    return Placement(most, scaling.cpus_per_worker, gpus, fewest=fewest if fewest < most else None)


def gpu_share(processes: int, gpus: float) -> float:
    """Return the part of a GPU that each process gets, such that all of them find a place.

    A share cannot be spread over two GPUs: three processes on two GPUs get a half each.
    """
    if not gpus:
        return 0.0
    # Rounded down, since the shares of one GPU may not add up to more than it.
    return math.floor(10_000 / math.ceil(processes / gpus)) / 10_000


def local_resources() -> Resources:
    """Return what this machine has, without starting Ray."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Resources(float(len(os.sched_getaffinity(0))), float(gpus))


def joins_cluster() -> bool:
    """Whether a running cluster was named (by `ray job submit` or by RAY_ADDRESS)."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


def check_resources(scaling: ScalingConfig, *, data_cpus: float = 0) -> None:
    """Refuse, before Ray starts, what this machine cannot give; a named cluster is asked later."""
    if not joins_cluster():
        place(scaling, local_resources(), data_cpus=data_cpus)


def check_named() -> None:
    """Refuse a named cluster that does not answer, before what takes long and does not need it.

    Raises:
        ClusterError: says what is wrong with RAY_ADDRESS.
    """
    if joins_cluster():
        check_address(os.environ["RAY_ADDRESS"])


def need_cpus(resources: Resources) -> None:
    """Refuse a cluster in which nothing can run.

    Raises:
        ClusterError: it has no CPU.
    """
    if resources.cpus < 1:
        raise ClusterError(
            f"there are {resources}: start a node that takes work. Autoscaling starts none for a "
            "job that has not begun: keep one always (min_workers, minReplicas)"
        )


@contextmanager
def connected(*, dashboard: bool = False) -> Iterator[Resources]:
    """Connect to the named cluster, or start one on this machine and stop it at the end.

    Args:
        dashboard: start one, on loopback; Tune asks it what a stopped trial leaves behind.

    Raises:
        ClusterError: the named cluster cannot be reached.
        MSVQAError: what Ray has wrapped into errors of its own, inside the block.
    """
    hold_standard()
    name_user()
    import ray

    # It prints what comes to us as an exception, with frames of its own.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    if ray.is_initialized():
        with _errors_of_ours():
            yield _everything()
        return
    with _own_answer_to_sigterm():
        if joins_cluster():
            _join(os.environ["RAY_ADDRESS"])
        else:
            _start(dashboard=dashboard)
            _own.set()
    try:
        with _ray_messages_in_a_file(), _errors_of_ours():
            yield _everything()
    finally:
        ray.shutdown()
        _own.clear()


@contextmanager
def _errors_of_ours() -> Iterator[None]:
    """Raise errors that a user can act on in place of those of Ray; say where to look for others.

    Raises:
        MSVQAError: what was found in an error of Ray.
    """
    try:
        yield
    except MSVQAError:
        raise
    except Exception as error:
        if ours := user_error(error):
            raise ours from error
        logger.error("This must be a bug. The logs of all processes are in %s", _logs_of_ray())
        raise


def _logs_of_ray() -> str:
    import ray

    node: Any = ray._private.worker._global_node
    return str(node.get_logs_dir_path()) if node else "the session folder of Ray on each node"


@contextmanager
def _own_answer_to_sigterm() -> Iterator[None]:
    """Put back our handler of SIGTERM, in whose place Ray puts its own while it starts."""
    answer = signal.getsignal(signal.SIGTERM)
    if not callable(answer) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        # Ray's answer, which ends the process without a word.
        signal.signal(signal.SIGTERM, answer)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, answer)


def is_own() -> bool:
    """Whether the connected cluster was started here by `connected`, and ends with its block."""
    return _own.is_set()


def has_dashboard() -> bool:
    """Whether the connected cluster runs a dashboard."""
    import ray

    node: Any = ray._private.worker._global_node
    return bool(node and node.webui_url)


def on_loopback() -> bool:
    """Whether the connected cluster is one that listens on this machine's loopback alone."""
    import ray

    addresses = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return addresses <= {"127.0.0.1", "::1"}


def _join(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, AuthenticationError) as error:
        raise unreachable(address, error) from error


def _start(*, dashboard: bool) -> None:

    # One person's own processes on loopback; a cluster keeps Ray's own default.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    spare_loopback_from_proxies()
    places, have = find_places(), local_resources()
    if places.instead:
        logger.warning("%s; Ray works in %s", places.instead, places.folder)
    options = {
        "num_cpus": int(have.cpus),
        "num_gpus": int(have.gpus),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": dashboard,
        "_temp_dir": places.folder,
        "_plasma_directory": places.objects,
    }
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            _start_once(options)
            return
        except SystemExit as ended:
            if ended.code == signal.SIGTERM:
                raise
            raise _not_started(places, ended) from ended
        except Exception as error:  # Ray has no class of errors for what may be in its way
            # A plain Exception: it waits for its parts for 30 s, too short for a busy machine.
            passes = type(error) in (Exception, RuntimeError, ConnectionError, TimeoutError)
            if not passes or attempt == START_ATTEMPTS:
                raise _not_started(places, error) from error
            logger.warning("Ray did not start in time, the machine is busy: trying again")


def _start_once(options: Mapping[str, Any]) -> None:
    import ray

    before = child_processes()
    try:
        with _bound_to_loopback(), _nodes_stay():
            ray.init(address="local", log_to_driver=False, logging_level=logging.WARNING, **options)
    except BaseException:
        ray.shutdown()
        # Of a start that has failed Ray forgets what it has started.
        for child in child_processes() - before:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
        raise


def _not_started(places: Places, error: BaseException) -> ClusterError:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason")
    return ClusterError(
        f"Ray cannot start on this machine ({type(error).__name__}: {said}): `msvqa doctor` looks "
        f"at what it needs, and its logs are in {places.folder}/session_latest/logs"
    )


@contextmanager
def _bound_to_loopback() -> Iterator[None]:
    """Let Ray take 127.0.0.1 as this machine's address, to which its servers then bind.

    Ray does so on macOS and Windows. On Linux it replaces a loopback address that it is given by
    one that other machines reach, and listens on all interfaces; its environment variable for that
    is read when ray is imported, which may be long ago.
    """
    from ray._private import ray_constants

    original = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = original


@contextmanager
def _nodes_stay() -> Iterator[None]:
    """Let the trainers of the cluster that is started in the block watch for no loss of nodes.

    All its processes get the environment of the block. One node alone is taken from nobody with
    notice, and the watcher is a process.
    """
    if WATCHER in os.environ:
        yield
        return
    os.environ[WATCHER] = "0"
    try:
        yield
    finally:
        del os.environ[WATCHER]


@contextmanager
def _ray_messages_in_a_file() -> Iterator[None]:
    """Send what Ray's C++ part writes to stderr to a file; Python's own stderr stays where it is.

    Those lines look like errors but are notes for Ray's developers.
    """
    original, python_stderr = os.dup(2), sys.stderr
    # A notebook shows what is written elsewhere than to descriptor 2.
    moves = _writes_to(python_stderr, 2)
    try:
        with _log_of_ray() as log:
            if moves:
                _replace_stderr(_like(python_stderr, os.dup(original)))
            os.dup2(log.fileno(), 2)
            yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        if sys.stderr is not python_stderr:
            # What a full disk did not take is lost, and no reason to end a command that is done.
            with suppress(OSError):
                _replace_stderr(python_stderr).close()


def _replace_stderr(stream: Any) -> Any:
    """Put a stream in the place of Python's stderr, also in handlers of messages; return that."""
    before, sys.stderr = sys.stderr, stream
    with suppress(OSError, ValueError):
        before.flush()
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            # `setStream` leaves a stream in its place that it cannot flush, as on a full disk.
            handler.acquire()
            handler.stream = stream
            handler.release()
    return before


def _like(stream: Any, descriptor: int) -> TextIO:
    """Return a stream of lines to a descriptor of its own, which work outlasts when it is full."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return outlet(descriptor, encoding=encoding, line_buffering=True, closefd=True)


def _writes_to(stream: Any, descriptor: int) -> bool:
    try:
        return bool(stream is not None and stream.fileno() == descriptor)
    except (OSError, ValueError, AttributeError):
        return False


def _log_of_ray() -> IO[bytes]:
    try:
        return tempfile.NamedTemporaryFile(prefix="msvqa-ray-", suffix=".log")
    except OSError:
        return open(os.devnull, "wb")  # noqa: PTH123 - no path


def _everything() -> Resources:
    """Return what the connected cluster has."""
    import ray

    nodes = tuple(_of(node["Resources"]) for node in ray.nodes() if node["Alive"])
    total = _of(ray.cluster_resources())
    return Resources(total.cpus, total.gpus, nodes)


def _of(resources: Mapping[str, float]) -> Resources:
    return Resources(resources.get("CPU", 0.0), resources.get("GPU", 0.0))
