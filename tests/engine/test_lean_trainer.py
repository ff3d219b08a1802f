"""What a stage starts: no process that has nothing to do, and all that a shared cluster needs."""

import subprocess
import sys
from collections import Counter

import psutil
import pytest

from msvqa.engine import cluster
from tests.faults.bench import STAGE, Bench

HELPERS = {"DatasetManager", "PlacementGroupCleaner", "PreemptionWatcher"}
ON_A_CLUSTER_OF_ITS_OWN = """
import sys
from msvqa.engine import cluster
from tests.engine.test_lean_trainer import started
with cluster.connected():
    print(*started(sys.argv[1]))
print(cluster.is_own())
"""


def trainer(folder, **options):
    from ray.train import RunConfig, ScalingConfig

    from msvqa.engine.lean_trainer import LeanTrainer
    from msvqa.engine.process_group import LoopbackConfig

    return LeanTrainer(
        nothing,
        scaling_config=ScalingConfig(num_workers=1),
        run_config=RunConfig(name="stage", storage_path=str(folder)),
        backend_config=LoopbackConfig("gloo"),
        **options,
    )


def nothing():
    """A training of no steps."""


def started(folder):
    """Train nothing; return the classes of the actors that were started for it."""
    import ray

    before = set(ray._private.state.actors())
    trainer(folder).fit()
    actors = ray._private.state.actors()
    return sorted(actors[name]["ActorClassName"] for name in actors.keys() - before)


def kinds(callbacks):
    return Counter(type(callback).__name__ for callback in callbacks)


@pytest.fixture
def by_default(tmp_path):
    """The callbacks of Ray's own trainer."""
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    return kinds(DataParallelTrainer._create_default_callbacks(trainer(tmp_path)))


def test_only_what_has_nothing_to_do_is_left_out(tmp_path, by_default, monkeypatch):
    without_datasets = by_default - Counter(["DatasetsCallback"]) + Counter(["_NoDatasets"])
    assert without_datasets.total() == by_default.total()
    assert kinds(trainer(tmp_path)._create_default_callbacks()) == without_datasets
    monkeypatch.setattr(cluster, "is_own", lambda: True)
    without_cleaner = without_datasets - Counter(["PlacementGroupCleanerCallback"])
    assert without_cleaner.total() == by_default.total() - 1
    assert kinds(trainer(tmp_path)._create_default_callbacks()) == without_cleaner


def test_with_data_sets_all_is_as_by_default(tmp_path, by_default):
    data = {"train": lambda: None}
    assert kinds(trainer(tmp_path, datasets=data)._create_default_callbacks()) == by_default


@pytest.mark.long
def test_the_controller_needs_no_torch():
    program = (
        "import sys, msvqa.engine.lean_trainer, msvqa.engine.process_group, msvqa.engine.waiting; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.ray
def test_a_cluster_that_was_joined_keeps_its_helpers(ray_local, tmp_path):
    actors = {*started(tmp_path)}
    assert {"TrainController", "RayTrainWorker"} <= actors
    assert actors & HELPERS == {"PlacementGroupCleaner", "PreemptionWatcher"}


@pytest.mark.ray
def test_a_cluster_of_its_own_has_no_helpers(tmp_path):
    program = [sys.executable, "-c", ON_A_CLUSTER_OF_ITS_OWN, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, check=True)
    *_, actors, own_afterwards = done.stdout.splitlines()
    assert {"TrainController", "RayTrainWorker"} <= {*actors.split()}
    assert not {*actors.split()} & HELPERS
    assert own_afterwards == "False"


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_controller_ends_the_command_which_goes_on(tmp_path):
    """Nobody frees its workers' places: they end with the cluster."""
    bench = Bench(tmp_path)
    recipe = bench.recipe_file("controlled")
    command = bench.train(recipe)
    command.until(bench.reached(recipe), "step 8")
    family = command.descendants()
    (controller,) = command.descendants("TrainController")
    controller.kill()
    assert command.ends() == 2, command.said()
    assert "error: a worker died" in command.said()
    assert not psutil.wait_procs(family, timeout=30)[1]
    bench.train(recipe).ends_well()
    assert bench.run(recipe).is_finished(STAGE)
