"""The files for `ray up` and the Ray jobs fit Ray and the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "ray_jobs").glob("*.py"))
CLUSTERS = ("cluster.yaml", "deploy/gcp.yaml", "deploy/on-premises.yaml")
IN_A_CLOUD = CLUSTERS[:2]


def checked(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    # The raw file lacks the defaults that validation asks for.
    complete = prepare_config(config)
    validate_config(complete)
    return complete


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture
def config():
    return read("cluster.yaml")


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_file_is_valid(name):
    complete = checked(read(name))
    assert complete["head_node_type"] in complete["available_node_types"]


@pytest.mark.parametrize("name", IN_A_CLOUD)
def test_a_cloud_has_workers_for_both_kinds_of_work(name):
    config = read(name)
    types = config["available_node_types"]
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["decode"]["resources"]["CPU"] > 0
    # The head stays free for the job itself.
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert sum(kind["max_workers"] for kind in types.values()) <= config["max_workers"]


@pytest.mark.parametrize("name", CLUSTERS)
def test_only_folders_at_the_top_stay_behind(name):
    """Without the slash rsync would leave `msvqa/data` behind as well."""
    excluded = read(name)["rsync_exclude"]
    assert "/data" in excluded
    assert all(pattern.startswith("/") for pattern in excluded)


def test_spot_machines_are_workers_only(config):
    spot = {
        name
        for name, kind in config["available_node_types"].items()
        if kind["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
    }
    assert spot == {"decode", "gpu_spot"}


@pytest.mark.parametrize("name", IN_A_CLOUD)
def test_the_image_of_a_cluster_has_a_tested_version_of_ray(name):
    import ray

    tag = read(name)["docker"]["image"].split(":")[1]
    assert tag.startswith(f"{ray.__version__.rsplit('.', 1)[0]}.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head_node_type": "nothing"}, "(?i)head"),
        ({"max_worker": 3}, "max_worker"),
        ({"provider": {"type": "cloud"}}, "(?i)provider|cloud"),
        ({"max_workers": -1}, "(?i)minimum|less than|max_workers"),
    ],
)
def test_a_wrong_cluster_file_is_refused(config, change, message):
    with pytest.raises(Exception, match=message):
        checked(config | change)


@pytest.mark.parametrize("name", CLUSTERS)
def test_jobs_are_taken_on_loopback_and_a_token_is_asked_for(name):
    config = read(name)
    starts = [
        command
        for role in ("head", "worker")
        for command in config[f"{role}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert all(s.startswith("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ") for s in starts)
    assert "~/.ray/auth_token" in config["file_mounts"]


@pytest.mark.long
@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_a_job_is_short_and_takes_the_words_of_its_verb(file, tmp_path):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, file, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert f"usage: msvqa {file.stem} " in done.stdout
