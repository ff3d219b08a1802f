"""A real Ray head on loopback, with the server that takes jobs and a token."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.forked_python import descendants, program

START_S = 240
STOP_S = 20


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    jobs_url: str
    environment: dict[str, str]
    """What a process needs in order to use the head."""

    def ask(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """Return status and answer of the jobs server."""
        headers = {"Authorization": f"Bearer {token or self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(self.jobs_url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, None


@contextmanager
def running_head() -> Iterator[Head]:
    """Start a head of two CPUs; stop it and all its processes, also after a failure."""
    gcs, dashboard, agent, grpc, client = _free_ports(5)
    programs = Path(sys.executable).parent
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        # The name is Ray's; the effect is that a head on Linux also keeps to loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [
        program(), str(programs / "ray"), "start", "--head", "--block", "--num-cpus=2",
        "--num-gpus=0", "--object-store-memory=300000000", f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        f"--dashboard-agent-grpc-port={grpc}", f"--ray-client-server-port={client}",
    ]  # fmt: skip
    # Sockets of Ray have paths of at most 107 bytes: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        log = Path(folder) / "head.log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*command, f"--temp-dir={folder}/r"],
                env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        head = Head(f"127.0.0.1:{gcs}", environment["RAY_API_SERVER_ADDRESS"], environment)
        try:
            _wait(head, process, log)
            yield head
        finally:
            _stop(process.pid)


def _wait(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError):
            if head.ask("/api/jobs/")[0] == 200:
                return
        time.sleep(0.5)
    raise RuntimeError(f"the head did not start:\n{log.read_text(encoding='utf-8')[-4000:]}")


def _stop(pid: int) -> None:
    """Kill a process and all that it started; `ray stop` would end every Ray of this machine."""
    if not psutil.pid_exists(pid):
        return
    family = [psutil.Process(pid), *descendants(psutil.Process(pid))]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=STOP_S)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
