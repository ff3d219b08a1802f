"""Real Ray clusters of several nodes on one machine; each node is a process group of its own.

Where this may be done, a node sees a file system of its own: of /tmp it has only the folders that
it is given. So what reaches it came through the given storage, or through Ray.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests import forked_python
from tests.forked_python import descendants, program

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
START_S = 240
QUICK_CHECKS = (
    '{"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, '
    '"health_check_timeout_ms": 5000, "health_check_failure_threshold": 5}'
)
# Keeps the folders that are its arguments, puts an empty /tmp over the rest, and goes to the first.
OWN_FILES = """
set -e
mount -t tmpfs tmpfs /srv
n=0
for folder in "$@"; do
  n=$((n + 1)); mkdir "/srv/$n"; mount --rbind "$folder" "/srv/$n"
done
mount -t tmpfs tmpfs /tmp
n=0
for folder in "$@"; do
  n=$((n + 1)); mkdir -p "$folder"; mount --rbind "/srv/$n" "$folder"
done
cd "$1"
exec $COMMAND
"""


class Node:
    """A running node."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, address: str) -> None:
        self.process, self.folder, self.address = process, folder, address

    def said(self) -> str:
        """Return what `ray start` has printed."""
        return (self.folder / "node.log").read_text(encoding="utf-8", errors="replace")

    def sees(self, place: Path) -> bool:
        """Whether there is such a file or folder on the node's own file system."""
        return Path(f"/proc/{self.process.pid}/root", place.relative_to("/")).exists()

    def family(self) -> list[psutil.Process]:
        """Return all processes of the node."""
        try:
            own = psutil.Process(self.process.pid)
            return [own, *descendants(own)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Lose the node: all its processes at once, without a word to anybody."""
        family = self.family()
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=20)
        self.process.wait(20)


class Nodes:
    """A cluster whose head takes no tasks; nodes come and go."""

    def __init__(self, folder: Path, shared: Sequence[Path] | None) -> None:
        self._folder, self._shared = folder, shared
        self._apart = None if shared is None else own_namespace()
        self._count = 0
        self.nodes: list[Node] = []
        self.address = f"127.0.0.2:{_free_port()}"

    def add_head(self) -> Node:
        """Start the head, which comes before all others."""
        return self._start(
            "--head", f"--port={self.address.rpartition(':')[2]}", "--num-cpus=0",
            "--include-dashboard=false", f"--system-config={QUICK_CHECKS}",
        )  # fmt: skip

    def add(self, cpus: int = 1, *, umask: int = 0o022) -> Node:
        """Add a node; the umask is seen in the modes of the files that its tasks write."""
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}", umask=umask)

    def lose(self, node: Node) -> None:
        """Kill a node."""
        node.kill()
        self.nodes.remove(node)

    def close(self) -> None:
        """End all nodes, the head last."""
        for node in reversed(self.nodes):
            node.kill()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Let the commands that are started in the block join this cluster."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("RAY_ADDRESS", self.address)
            yield

    def _start(self, *options: str, umask: int = 0o022) -> Node:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        address = f"127.0.0.{self._count + 1}"
        apart = self._apart if self._shared is not None and self._count > 1 else None
        # What has a /tmp of its own finds no server there but one of its own.
        python = [sys.executable, forked_python.__file__, "run"] if apart else [program()]
        command = [
            *python, str(PROGRAMS / "ray"), "start", "--block", f"--node-ip-address={address}",
            "--num-gpus=0", "--object-store-memory=100000000",
            "--min-worker-port=0", "--max-worker-port=0",
            f"--dashboard-agent-listen-port={_free_port()}",
            f"--temp-dir={folder}", *options,
        ]  # fmt: skip
        environment = {**_environment(), "HOME": str(folder), "TMPDIR": str(folder)}
        if apart:
            environment["COMMAND"] = " ".join(command)
            kept = _outermost([folder, *(self._shared or ()), ROOT, Path(sys.prefix)])
            command = [*apart, "sh", "-c", OWN_FILES, "node", *map(str, kept)]
        with (folder / "node.log").open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=output, stderr=output,
                start_new_session=True, umask=umask,
            )  # fmt: skip
        node = Node(process, folder, address)
        self.nodes.append(node)
        deadline = time.monotonic() + START_S
        while "Ray runtime started" not in node.said():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start:\n{node.said()[-4000:]}")
            time.sleep(0.2)
        return node


@contextmanager
def running_nodes(shared: Sequence[Path] | None = None) -> Iterator[Nodes]:
    """Start a head and give its cluster; end all its processes, also after a failure.

    Args:
        shared: what the nodes see of /tmp, besides a folder of their own; null: all of it, as where
            `own_namespace` finds none.
    """
    # Sockets of Ray have paths of at most 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="n-", dir="/tmp"))
    nodes = Nodes(folder, shared)
    try:
        nodes.add_head()
        yield nodes
    finally:
        nodes.close()
        shutil.rmtree(folder, ignore_errors=True)


def own_namespace() -> list[str] | None:
    """Return how to start a process that may mount, unseen by others; None where nobody lets us.

    Root may; others may where the kernel lets them be root of a namespace of users.
    """
    if shutil.which("unshare") is None:
        return None
    ways = (["unshare", "-m"], ["unshare", "-r", "-m"])
    mounts = ["sh", "-c", "mount -t tmpfs tmpfs /srv"]
    tried = (way for way in ways if not subprocess.run([*way, *mounts], check=False).returncode)
    return next(tried, None)


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """Return the folders below /tmp that are in none of the others, in the given order."""
    hidden = [folder for folder in folders if folder.is_relative_to("/tmp")]
    return [f for f in hidden if not any(f != o and f.is_relative_to(o) for o in hidden)]


def _environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return own | {
        "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
