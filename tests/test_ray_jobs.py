"""Jobs: what is submitted, and a real one on a real head."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from msvqa.data.datasets.synthetic import generate
from msvqa.run import Run
from tests.ray_head import running_head
from tests.tiny import VIDEOS, make_recipe, raw_recipe

ROOT = Path(__file__).parents[1]
SUBMIT = ROOT / "ray_jobs" / "submit.sh"
LIMIT_BYTES = 100 * 2**20


def package_of(folder, target):
    """Zip a working directory as Ray does, and return the names in it."""
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), target, include_gitignore=True, excludes=[])
    with zipfile.ZipFile(target) as package:
        return package.namelist()


def test_a_job_takes_the_code_along_and_nothing_large(tmp_path):
    folder = tmp_path / "copy"
    large = (
        "runs/a", "prepared/b", "data/c", "demo/d", ".venv/e", ".git/f", "weights.pth",
        "clips.zip", "mine/a.mov", "mine/clips.tar.gz",
    )  # fmt: skip
    for name in large:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"0")
    for name in (".rayignore", ".gitignore", "setup.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("msvqa", "ray_jobs", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    names = package_of(folder, tmp_path / "package.zip")
    assert not {*names} & {*large}
    assert {"msvqa/data/dataset.py", "ray_jobs/train.py", "configs/quickstart.yaml"} <= {*names}
    assert (tmp_path / "package.zip").stat().st_size < LIMIT_BYTES / 10


def test_the_rules_hold_without_git_as_well(tmp_path):
    """A downloaded copy has no .gitignore that Ray could read besides."""
    folder = tmp_path / "copy"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "large").write_bytes(b"0")
    (folder / "msvqa" / "data").mkdir(parents=True)
    (folder / "msvqa" / "data" / "kept.py").write_bytes(b"0")
    shutil.copy(ROOT / ".rayignore", folder)
    assert package_of(folder, tmp_path / "package.zip") == [".rayignore", "msvqa/data/kept.py"]


@pytest.mark.parametrize("words", [[], ["nothing"], ["../train"], ["--help"]])
def test_submit_lists_the_verbs_that_there_are(words):
    done = subprocess.run([SUBMIT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "evaluate extract prepare train" in done.stderr


@pytest.mark.long
def test_submit_names_what_is_too_large_for_a_job(tmp_path):
    """Sparse files: they have a size, and take no room."""
    folder = tmp_path / "copy"
    (folder / "ray_jobs").mkdir(parents=True)
    shutil.copy(ROOT / ".rayignore", folder)
    for name in ("submit.sh", "train.py"):
        shutil.copy(ROOT / "ray_jobs" / name, folder / "ray_jobs")
    for name, size in {"answers.csv": 70 * 2**20, "b.bin": 31 * 2**20, "c.mov": 2**30}.items():
        with (folder / name).open("wb") as file:
            file.truncate(size)
    done = submit_from(folder)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: .* at most 100 MiB of the 101\.0 MiB in ", line)
    assert line.endswith("the largest are answers.csv (70.0 MiB), b.bin (31.0 MiB)")
    done = submit_from(folder, MSVQA_RUNTIME_ENV='{"excludes": ["b.bin"]}')
    assert "no server that takes jobs answers" in done.stderr


def submit_from(folder, **environment):
    """Submit where no server answers; return how it ends."""
    nowhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1", "RAY_AUTH_MODE": "disabled"}
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [folder / "ray_jobs" / "submit.sh", "train", "x"],
        env={**os.environ, "PATH": beside, **nowhere, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_submit_says_that_no_server_answers():
    done = submit_from(ROOT)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no server that takes jobs answers at http://127.0.0.1:1: ")


def test_submit_is_a_clean_script():
    beside_python = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=beside_python)
    if not shellcheck:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run([shellcheck, SUBMIT], capture_output=True, text=True, check=False)
    assert not done.stdout


@pytest.fixture(scope="module")
def head():
    with running_head() as found:
        yield found


def submit(head, *words, job=""):
    return subprocess.run(
        [SUBMIT, *words], env=head.environment | {"MSVQA_JOB_ID": job}, capture_output=True,
        text=True, timeout=400, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The storage that all nodes share: videos and a recipe."""
    folder = tmp_path_factory.mktemp("shared")
    generate(folder / "data", videos=VIDEOS)
    raw = raw_recipe(folder) | {"scaling": {"cpus_per_worker": 0.5}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return folder


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_trains_and_the_same_job_again_has_nothing_to_do(head, shared):
    done = submit(head, "train", shared / "tiny.yaml", job="first")
    assert done.returncode == 0, done.stdout + done.stderr
    status, job = head.ask("/api/jobs/first")
    assert (status, job["status"], job["driver_exit_code"]) == (200, "SUCCEEDED", 0)
    # Logs are followed: the lines of the verb come back.
    assert "stage reconstruct starts" in done.stdout
    run = Run.open(shared / "runs" / "tiny")
    assert run.is_finished("reconstruct") and run.is_finished("answer")
    rows = run.metrics()

    again = submit(head, "train", shared / "tiny.yaml", job="again")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "starts" not in again.stdout
    assert run.metrics() == rows

    done = submit(head, "evaluate", run.path, "--split", "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run.evaluation("test")[0]["n"] == 7 * VIDEOS["test"]
    assert "For comparison: " in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_searches(head, shared):
    space = {"name": "lr", "fields": {"stages.answer.optimizer.lr": {"choice": [1e-3, 2e-3]}}}
    (shared / "space.yaml").write_text(yaml.safe_dump(space | {"search": "grid"}))
    words = (shared / "tiny.yaml", shared / "space.yaml", "name=searched")
    done = submit(head, "tune", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 trials finished" in done.stdout
    assert Path(shared / "runs" / "searched-lr" / "best.yaml").is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_that_is_stopped_writes_a_checkpoint(head, shared):
    words = ("train", shared / "tiny.yaml", "name=stopped", "stages.0.epochs=10000")
    with ThreadPoolExecutor() as pool:
        submitted = pool.submit(submit, head, *words, job="stopped")
        run = Run(shared / "runs" / "stopped", make_recipe(shared))
        while not run.metrics():
            assert not submitted.done(), submitted.result()
            time.sleep(0.2)
        stop = [Path(sys.executable).with_name("ray"), "job", "stop", "stopped"]
        subprocess.run(stop, env=head.environment, check=True, capture_output=True)
        done = submitted.result()
    assert "has written a checkpoint after step" in done.stdout, done.stdout
    assert done.returncode == 128 + signal.SIGTERM
    assert head.ask("/api/jobs/stopped")[1]["status"] == "STOPPED"
    assert run.checkpoints("reconstruct")


@pytest.mark.ray
@pytest.mark.slow
def test_the_exit_code_of_a_job_is_that_of_its_verb(head, shared):
    done = submit(head, "train", shared / "tiny.yaml", "runs=runs")
    assert done.returncode == 2
    assert "which is thrown away with runs=" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_without_the_token_nothing_is_done(head, shared):
    assert head.ask("/api/jobs/", token="0" * 64)[0] in (401, 403)
    stranger = {**head.environment, "RAY_AUTH_TOKEN": "0" * 64}
    done = subprocess.run(
        [SUBMIT, "train", "x"], env=stranger, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "put the token of the cluster into" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    train = [sys.executable, "-m", "msvqa", "train", shared / "tiny.yaml", "name=stranger"]
    done = subprocess.run(
        train, env=stranger | {"RAY_ADDRESS": head.address}, cwd=ROOT, capture_output=True,
        text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"no Ray cluster can be reached at RAY_ADDRESS={head.address}" in done.stderr
