"""What can stop Ray from starting is found before it is tried, and is one sentence."""

import os
import resource
import socket
import threading

import pytest

from msvqa import machine
from msvqa.checks.machine import _starting_ray
from msvqa.engine import cluster, starting
from msvqa.engine.starting import (
    FOLDER_BYTES,
    check_address,
    find_places,
    spare_loopback_from_proxies,
)
from msvqa.errors import ClusterError


@pytest.fixture
def short(tmp_path_factory, monkeypatch):
    """Stand in for /tmp, where nothing else is known."""
    folder = tmp_path_factory.getbasetemp().parent / f"s{os.getpid()}"
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(starting, "SHORT_FOLDERS", (str(folder),))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    for entry in folder.iterdir():
        entry.unlink() if entry.is_symlink() else entry.rmdir()
    folder.rmdir()


def test_rays_own_limit_of_a_path_is_known():
    from ray._private.utils import validate_socket_filepath

    longest = "/" + "x" * (FOLDER_BYTES - 1) + starting.SOCKET
    validate_socket_filepath(longest)
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(longest + "x")


def test_the_folder_of_the_environment_is_taken_where_it_can_be(short):
    assert find_places() == starting.Places(f"{short}/ray")
    assert _starting_ray().status == "ok"


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_path_is_said_and_a_short_one_taken(short, monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, str(tmp_path / ("long" * 30)))
    places = find_places()
    assert places.folder == f"{short}/ray-{os.getuid()}"
    assert places.instead.startswith(f"{name}={tmp_path}")
    assert "too long for the sockets of Ray" in places.instead
    assert not list(tmp_path.iterdir())
    check = _starting_ray()
    assert (check.status, check.advice) == ("warn", places.instead)


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("/proc/none", "No such file"),
        ("/dev/null", "Not a directory"),
        ("relative", "is no absolute path"),
        ("", "is no absolute path"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(short, monkeypatch, folder, said):
    monkeypatch.setenv("TMPDIR", folder)
    places = find_places()
    assert places.folder.startswith(str(short))
    assert places.instead.startswith(f"TMPDIR={folder}: ")
    assert said in places.instead


def test_a_full_disk_is_none(short, monkeypatch):
    monkeypatch.setattr(starting, "NEEDED_BYTES", 1 << 62)
    with pytest.raises(ClusterError, match=r"is full; .*is full.*set RAY_TMPDIR"):
        find_places()


def test_the_folder_of_somebody_else_is_not_used(short, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", "/proc/none")
    (short / f"ray-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ClusterError, match=r"TMPDIR=/proc/none.*belongs to somebody else"):
        find_places()
    assert _starting_ray().status == "fail"


def test_where_there_is_no_shared_memory_objects_are_files(short, monkeypatch):
    monkeypatch.setattr(starting, "SHARED_MEMORY", "/proc/none")
    assert find_places().objects == f"{short}/ray"


def test_too_few_open_files_are_said(short, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (64, 64))
    with pytest.raises(ClusterError, match=r"64 files open.*ulimit -n"):
        find_places()


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere.invalid:6379", "host", "a:99999"])
def test_a_cluster_that_does_not_answer_is_named_by_the_doctor_too(monkeypatch, address):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", address.format(port=unused.getsockname()[1]))
        with pytest.raises(ClusterError, match="no Ray cluster can be reached at RAY_ADDRESS="):
            check_address(os.environ["RAY_ADDRESS"])
        assert _starting_ray().status == "fail"


@pytest.mark.parametrize("answer", [b"-ERR unknown command 'PRI'\r\n", b"HTTP/1.1 400 ", b"", None])
def test_what_listens_and_is_no_cluster_is_named_within_seconds(monkeypatch, answer):
    monkeypatch.setattr(starting, "CONNECT_TIMEOUT_S", 0.5)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                    return
                # Silent until the other side hangs up.
                while connection.recv(64):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            ClusterError, match=rf"RAY_ADDRESS={address} \(.*(no Ray|timed out|reset)"
        ):
            check_address(address)
        thread.join()


def test_what_stays_on_this_machine_goes_through_no_proxy(monkeypatch):
    for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    spare_loopback_from_proxies()
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "intern.example, localhost")
    spare_loopback_from_proxies()
    assert os.environ["no_proxy"] == "intern.example,localhost,127.0.0.1,::1"
    assert os.environ["NO_PROXY"] == "localhost,127.0.0.1,::1"
    monkeypatch.setenv("no_proxy", "*")
    spare_loopback_from_proxies()
    assert os.environ["no_proxy"] == "*"


def test_a_user_without_an_entry_gets_a_name_and_a_home(monkeypatch):
    def refuse(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME", "MSVQA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(machine.pwd, "getpwuid", refuse)
    machine.name_user()
    assert os.environ["USER"] == f"user{os.getuid()}"
    assert str(machine.machine_folder()).startswith(os.environ["HOME"])


@pytest.mark.parametrize(
    ("errors", "tries", "said"),
    [
        ([Exception("node timed out")] * 2, 3, None),
        ([Exception("node timed out")] * 3, 3, r"Ray cannot start .*Exception: node timed out"),
        ([OSError(98, "Address already in use")], 1, r"Ray cannot start .*Address already in use"),
        ([SystemExit(1)], 1, r"Ray cannot start on this machine \(SystemExit: 1\)"),
    ],
)
def test_a_busy_machine_gets_time_and_the_rest_is_one_sentence(
    short, monkeypatch, errors, tries, said
):
    tried = []

    def start(options):
        tried.append(options["_temp_dir"])
        if len(tried) <= len(errors):
            raise errors[len(tried) - 1]

    monkeypatch.setattr(cluster, "_start_once", start)
    if said is None:
        cluster._start(dashboard=False)
    else:
        with pytest.raises(ClusterError, match=said):
            cluster._start(dashboard=False)
    assert tried == [f"{short}/ray"] * tries
