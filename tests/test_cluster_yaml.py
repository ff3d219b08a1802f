"""The cluster file and the Ray jobs fit Ray and the command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
JOBS = sorted((ROOT / "ray_jobs").glob("*.py"))


def checked(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    # The raw file lacks the defaults that validation asks for.
    complete = prepare_config(config)
    validate_config(complete)
    return complete


@pytest.fixture
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_the_cluster_file_is_valid(config):
    complete = checked(config)
    assert complete["head_node_type"] in complete["available_node_types"]
    assert complete["available_node_types"]["gpu"]["max_workers"] >= 1


def test_the_cluster_image_has_a_tested_version_of_ray(config):
    import ray

    tag = config["docker"]["image"].split(":")[1]
    assert tag.startswith(f"{ray.__version__.rsplit('.', 1)[0]}.")


def test_a_wrong_cluster_file_is_refused(config):
    with pytest.raises(Exception, match=r"(?i)head"):
        checked(config | {"head_node_type": "nothing"})


def test_nothing_listens_beyond_the_cluster(config):
    (start,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_a_job_is_short_and_takes_the_words_of_its_verb(file, tmp_path):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, file, "--help"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert f"usage: msvqa {file.stem} " in done.stdout
