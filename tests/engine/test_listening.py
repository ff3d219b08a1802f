"""A run on one machine cannot be reached from another one."""

import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msvqa.data.datasets.synthetic import generate
from tests.marks import again
from tests.tiny import VIDEOS

ROOT = Path(__file__).parents[2]


def is_loopback(address):
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def test_addresses_are_told_apart():
    assert all(map(is_loopback, ["127.0.0.1", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.0.2.2", "::ffff:192.0.2.2"]))


@pytest.mark.ray
@pytest.mark.slow
# With a dashboard there is all that there is without one.
@pytest.mark.parametrize("dashboard", [True, *again([False])])
def test_a_local_run_listens_on_loopback_alone(tmp_path, dashboard):
    generate(tmp_path / "data", videos=VIDEOS)
    command = [sys.executable, "-m", "tests.engine.listening", tmp_path, "2"]
    command += ["--dashboard"] * dashboard
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    # Both are there: the servers of Ray, and the workers that train together.
    names = {name for found in seen.values() for name in found}
    assert {"gcs_server", "raylet"} <= names
    assert any("dashboard" in name.lower() for name in names) or not dashboard
    assert any("TrainWorker" in name for name in names)
    assert not {address: found for address, found in seen.items() if not is_loopback(address)}
