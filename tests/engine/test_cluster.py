"""Placement of workers: what is asked for against what there is."""

import os
import socket
import subprocess
import sys

import pytest

from msvqa.engine.cluster import (
    Resources,
    check_resources,
    connected,
    joins_cluster,
    place,
)
from msvqa.errors import ClusterError
from msvqa.job import refuse_lost
from msvqa.recipe import ScalingConfig, WorkersConfig


@pytest.mark.parametrize(
    ("workers", "gpus", "expected", "backend"),
    [
        (2, 0, 0.0, "gloo"),
        (2, 2, 1.0, "nccl"),
        (2, 8, 1.0, "nccl"),
        (2, 1, 0.5, "gloo"),
        (3, 2, 0.5, "gloo"),
    ],
)
def test_gpus_are_shared_evenly_by_default(workers, gpus, expected, backend):
    placement = place(ScalingConfig(workers=workers), Resources(16, gpus))
    assert placement.gpus_per_worker == expected
    assert placement.backend == backend


def test_no_gpu_is_taken_where_none_is_wanted():
    placement = place(ScalingConfig(workers=2, gpus_per_worker=0), Resources(16, 8))
    assert placement.gpus_per_worker == 0
    assert placement.backend == "gloo"


def test_too_much_is_refused_with_what_was_asked_and_what_there_is():
    with pytest.raises(
        ClusterError, match=r"4 workers x \(1 CPUs, 0 GPUs\) = 4 CPUs .* are 2 CPUs"
    ):
        place(ScalingConfig(workers=4), Resources(2, 0))
    with pytest.raises(ClusterError, match=r"4 GPUs, but there are 64 CPUs and 1 GPUs"):
        place(ScalingConfig(workers=2, gpus_per_worker=2), Resources(64, 1))


def test_of_a_range_of_workers_the_fewest_must_fit():
    between = ScalingConfig(workers=WorkersConfig(min=2, max=8))
    placement = place(between, Resources(3, 0))
    assert (placement.fewest, placement.workers) == (2, 8)
    assert str(placement) == "2 to 8 workers x (1 CPUs, 0 GPUs)"
    with pytest.raises(ClusterError, match=r"2 workers x .* there are 1 CPUs"):
        place(between, Resources(1, 0))
    # A whole GPU each where there are enough for the fewest: more nodes bring more GPUs.
    assert place(between, Resources(16, 2)).gpus_per_worker == 1
    assert place(between, Resources(16, 1)).gpus_per_worker == 0.5


def test_decoding_while_training_needs_a_cpu_of_its_own():
    with pytest.raises(ClusterError, match=r"\+ 1 CPUs for decoding"):
        place(ScalingConfig(workers=2), Resources(2, 0), data_cpus=1)
    place(ScalingConfig(workers=2, cpus_per_worker=0.5), Resources(2, 0), data_cpus=1)


SMALL, LARGE, GPUS = Resources(1, 0), Resources(8, 0), Resources(4, 2)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "room"),
    [
        ((SMALL, SMALL), 1, 0, 2),
        ((SMALL, SMALL), 2, 0, 0),
        ((SMALL, SMALL), 0.1, 0, 20),
        ((LARGE, SMALL), 3, 0, 2),
        ((LARGE, GPUS), 1, 1, 2),
        ((LARGE, GPUS), 3, 1, 1),
        ((GPUS, GPUS), 1, 0.6, 4),
        ((GPUS, GPUS), 0.1, 0.3333, 12),
        ((Resources(16, 3), Resources(16, 1)), 1, 2, 1),
    ],
)
def test_a_worker_must_fit_on_one_node(nodes, cpus, gpus, room):
    total = Resources(sum(n.cpus for n in nodes), sum(n.gpus for n in nodes), nodes)
    assert total.room_for(cpus, gpus) == room
    workers = {"cpus_per_worker": cpus, "gpus_per_worker": gpus}
    if room:
        place(ScalingConfig(workers=room, **workers), total)
    with pytest.raises(ClusterError):
        place(ScalingConfig(workers=room + 1, **workers), total)


def test_what_no_node_has_is_refused_with_the_largest_node():
    with pytest.raises(
        ClusterError, match=r"each needs 2 CPUs .*largest of 2 nodes has 1 CPUs and"
    ):
        place(ScalingConfig(cpus_per_worker=2), Resources(2, 0, (SMALL, SMALL)))
    with pytest.raises(ClusterError, match=r"largest of 2 nodes has 4 CPUs and 2 GPUs"):
        place(ScalingConfig(cpus_per_worker=6), Resources(12, 2, (LARGE, GPUS)))


@pytest.mark.parametrize("address", ["", "local"])
def test_no_named_cluster_means_this_machine(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert not joins_cluster()


def test_a_named_cluster_is_not_measured_by_this_machine(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    check_resources(ScalingConfig(workers=1000))


def test_a_named_cluster_that_does_not_answer_is_named(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=rf"reached at RAY_ADDRESS={address} .*refused"):
            connected().__enter__()


@pytest.mark.parametrize(
    ("address", "advice"),
    [("http://127.0.0.1:8265", "RAY_API_SERVER_ADDRESS"), ("nonsense", "unset RAY_ADDRESS")],
)
def test_what_is_no_address_of_a_cluster_is_refused(monkeypatch, address, advice):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match=advice):
        connected().__enter__()


def test_places_that_go_with_the_job_are_refused():
    copy = "/tmp/ray/session/runtime_resources/working_dir_files/_ray_pkg_0/"
    refuse_lost({"runs": "/shared/runs", "data.root": "s3://bucket/videos"})
    with pytest.raises(ClusterError, match=r"thrown away with runs=\S+: give .* runs=/shared"):
        refuse_lost({"runs": f"{copy}runs", "data.root": "/shared/videos"})


TALK = """
import logging, os, sys
from msvqa.engine import cluster
logging.basicConfig(stream=sys.stderr, format="%(message)s")
with cluster._ray_messages_in_a_file():
    logging.error("ours while Ray runs")
    os.write(2, b"a note for Ray's developers")
logging.error("ours afterwards")
"""


@pytest.mark.long
def test_our_messages_stay_on_the_console_while_those_of_ray_do_not():
    said = subprocess.run([sys.executable, "-c", TALK], capture_output=True, text=True, timeout=120)
    assert said.stderr.splitlines() == ["ours while Ray runs", "ours afterwards"]


TALK_TO_A_FULL_DISK = """
import logging
from msvqa.engine.cluster import _ray_messages_in_a_file
logging.basicConfig()
with _ray_messages_in_a_file():
    logging.error("ours while Ray runs")
print("done", flush=True)
"""


@pytest.mark.long
def test_a_log_disk_that_is_full_does_not_end_what_is_done():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        said = subprocess.run(
            [sys.executable, "-c", TALK_TO_A_FULL_DISK], stdout=subprocess.PIPE, stderr=full,
            text=True, timeout=120,
        )  # fmt: skip
    assert said.stdout == "done\n"
    assert said.returncode in (0, 120), "120: Python cannot flush its own stderr"


@pytest.mark.long
@pytest.mark.parametrize("stderr", ["2> /dev/full", "2< /dev/null", "2>&1 | true"])
def test_work_is_done_where_our_messages_cannot_be_written(stderr):
    line = f'"{sys.executable}" -c "$TALK" {stderr}; exit ${{PIPESTATUS[0]}}'
    talk = f"from msvqa.console.streams import open_streams\nopen_streams()\n{TALK}print('done')"
    as_command = subprocess.run(["bash", "-c", line], env=os.environ | {"TALK": talk}, timeout=120)
    assert as_command.returncode == 0


@pytest.mark.long
def test_a_script_is_not_ended_by_messages_that_cannot_be_written():
    talk = f"{TALK}\nprint('done', flush=True)\nos._exit(0)"
    line = f'"{sys.executable}" -c "$TALK" 2> /dev/full'
    said = subprocess.run(
        ["bash", "-c", line], env=os.environ | {"TALK": talk}, capture_output=True, timeout=120
    )
    assert (said.stdout, said.returncode) == (b"done\n", 0)


IS_SENT = """
import msvqa.engine.cluster
from ray._common.usage import usage_lib
print(usage_lib.usage_stats_enabled())
"""


@pytest.mark.long
@pytest.mark.parametrize(("wish", "sent"), [({}, False), ({"RAY_USAGE_STATS_ENABLED": "1"}, True)])
def test_nothing_is_sent_anywhere_unless_the_user_wants_it(tmp_path, wish, sent):
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # Ray also reads a file in the home folder.
    environment = own | {"HOME": str(tmp_path)} | wish
    command = [sys.executable, "-c", IS_SENT]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert said.stdout == f"{sent}\n", said.stderr
