"""What can stop Ray from starting on this machine, looked at before it is tried."""

import errno
import os
import resource
import socket
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msvqa.errors import ClusterError

SOCKET = "/session_2000-01-01_00-00-00_000000_1234567/sockets/plasma_store"
"""What Ray appends to its folder for its longest socket; process ids have up to 7 digits."""
SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
FOLDER_BYTES = SOCKET_BYTES - len(SOCKET)
NEEDED_BYTES = 64 * 1024**2
OPEN_FILES = 256
SHORT_FOLDERS = ("/tmp", "/var/tmp")
"""Where Ray's folder is made when that of the environment cannot be used."""
SHARED_MEMORY = "/dev/shm"
CONNECT_TIMEOUT_S = 10.0
HEAD_BYTES, SETTINGS = 9, 4
"""Head of a frame of HTTP/2, which gRPC is spoken in, and type of the first on either side."""
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0])
"""https://www.rfc-editor.org/rfc/rfc9113#name-http-2-connection-preface"""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Places:
    """Where Ray keeps its sockets, its logs and its objects."""

    folder: str
    instead: str = ""
    """Why it is not where the environment says; empty: it is."""
    objects: str | None = None
    """Folder of the object store where there is no shared memory."""


def find_places() -> Places:
    """Return where Ray can work on this machine; nothing stays that it does not use.

    Raises:
        ClusterError: says what stands in its way, and what to set.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < OPEN_FILES:
        raise ClusterError(
            f"Ray cannot start: a process may have {most} files open, Ray needs {OPEN_FILES} or "
            "more: raise the limit (ulimit -n)"
        )
    shm = os.access(SHARED_MEMORY, os.W_OK | os.X_OK)
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    given = str(Path(os.environ[name] if name else SHORT_FOLDERS[0], "ray"))
    if not (problem := _problem(given)):
        return Places(given, objects=None if shm else given)
    tried = [f"{name}={os.environ[name]}: {problem}" if name else f"{given}: {problem}"]
    for folder in SHORT_FOLDERS:
        own = str(Path(folder, f"ray-{os.getuid()}"))
        if not (problem := _problem(own, private=True)):
            return Places(own, instead=tried[0], objects=None if shm else own)
        tried.append(f"{own}: {problem}")
    raise ClusterError(
        f"Ray has no folder to start in ({'; '.join(tried)}): set RAY_TMPDIR to a folder that can "
        f"be written, whose path has at most {FOLDER_BYTES - len('/ray')} bytes"
    )


def _problem(folder: str, *, private: bool = False) -> str:
    """Return why Ray cannot use a folder; it is made where it is absent."""
    if not folder.startswith("/"):
        return "is no absolute path"
    length = len(os.fsencode(folder + SOCKET))
    if length > SOCKET_BYTES:
        over = length - SOCKET_BYTES
        return f"is {over} bytes too long for the sockets of Ray (at most {SOCKET_BYTES} in all)"
    path = Path(folder)
    try:
        path.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        found = path.lstat()
        if private and not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()):
            return "belongs to somebody else"
        with tempfile.TemporaryFile(dir=path):
            free = os.statvfs(path)
    except OSError as error:
        return f"cannot be used ({os.strerror(error.errno or errno.EIO)})"
    if free.f_bavail * free.f_frsize < NEEDED_BYTES:
        return "is full"
    return ""


def check_address(address: str) -> None:
    """Refuse what does not answer as a cluster; Ray waits for minutes, and then ends the process.

    Raises:
        ClusterError: says what is wrong with RAY_ADDRESS.
    """
    if "://" in address:
        raise ClusterError(
            f"RAY_ADDRESS={address} is not the HOST:PORT of a cluster: unset it to work on this "
            "machine alone; the server that takes jobs is named by RAY_API_SERVER_ADDRESS"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        place = (host.strip("[]"), int(port))
        with socket.create_connection(place, CONNECT_TIMEOUT_S) as connection:
            _greet(connection)
    except (OSError, ValueError, OverflowError) as error:
        raise unreachable(address, error) from error


def _greet(connection: socket.socket) -> None:
    """Refuse a server that is none of Ray, such as Redis at the same port.

    Raises:
        OSError: it says something else, or nothing.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return
    connection.sendall(GREETING)
    said = b""
    while len(said) < HEAD_BYTES and (more := connection.recv(HEAD_BYTES - len(said))):
        said += more
    # Length (3), type, flags, stream (4)
    if len(said) < HEAD_BYTES or said[3] != SETTINGS:
        raise ConnectionError("what listens there is no Ray")


def unreachable(address: str, error: BaseException) -> ClusterError:
    """Return the error of a named cluster that cannot be joined."""
    return ClusterError(
        f"no Ray cluster can be reached at RAY_ADDRESS={address} ({error}): start it, check "
        "RAY_AUTH_MODE and the token, or unset RAY_ADDRESS to work on this machine alone"
    )


def spare_loopback_from_proxies() -> None:
    """Have what Ray's processes say to each other on this machine not go through a proxy."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return
    for name in ("no_proxy", "NO_PROXY"):
        listed = [entry.strip() for entry in os.environ.get(name, "").split(",") if entry.strip()]
        if "*" not in listed:
            os.environ[name] = ",".join([*listed, *(a for a in LOOPBACK if a not in listed)])


def child_processes() -> set[int]:
    """Return the processes of Ray that this process has started; empty where nobody says."""
    numbers = {
        int(number)
        for thread in Path("/proc/self/task").glob("*/children")
        for number in _text(thread).split()
    }
    return {number for number in numbers if "/ray/" in _text(Path(f"/proc/{number}/cmdline"))}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
