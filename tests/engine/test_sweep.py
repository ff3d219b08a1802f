"""A sweep: what counts as best, what is refused, how many trials fit."""

import json
import shutil
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from msvqa.engine.cluster import Placement, Resources
from msvqa.engine.search import concurrency
from msvqa.engine.sweep import OUTCOME, Sweep, Trial, write_outcome
from msvqa.engine.telling import Telling, watcher
from msvqa.errors import RunError, StorageError
from msvqa.page.search import coordinates, write_page
from msvqa.recipe import load, parse
from msvqa.run import Run
from msvqa.space import parse_space
from msvqa.storage import RemoteFolder, open_folder
from msvqa.strict_yaml import read_file
from tests.object_store import BUCKET, object_store, send
from tests.tiny import raw_recipe

LR, HEADS = "stages.answer.optimizer.lr", "model.heads"


def space(**changes):
    fields = {LR: {"log_uniform": [1e-4, 1e-2]}, HEADS: {"choice": [1, 2]}}
    return parse_space({"name": "s", "fields": fields, "samples": 4, **changes})


@pytest.fixture
def recipe(tmp_path):
    return parse(raw_recipe(tmp_path))


@pytest.fixture
def sweep(recipe):
    return Sweep.create(recipe, space())


def add_run(sweep, name, accuracies):
    run = Run.create(sweep.trial_recipe(name, {LR: 1e-3, HEADS: 1}))
    rows = [
        {"stage": "answer", "kind": "validation", "step": 10 * n, "epoch": n, "time_s": 2.0 * n,
         "accuracy": accuracy, "loss": 1 - accuracy}
        for n, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def trial(sweep, number, value, **values):
    name = f"trial-{number:04d}"
    values = {LR: 1e-3 * (number + 1), HEADS: 1, **values}
    return Trial(
        name=name, location=f"{sweep.location}/{name}", values=values, state="finished", value=value
    )


def test_a_trial_counts_with_its_best_validation(sweep):
    add_run(sweep, "trial-0000", [0.25, 0.75, 0.5])
    found = sweep.trial("trial-0000", {LR: 1e-3, HEADS: 1}, "stopped")
    assert (found.value, found.epochs, found.step, found.time_s) == (0.75, 3, 20, 4.0)
    assert found.state == "stopped"
    assert sweep.trial("trial-0001", {}, "waiting").value is None


def test_another_metric_is_read_where_the_best_checkpoint_is(recipe):
    sweep = Sweep.create(recipe, space(metric="loss", mode="min"))
    run = add_run(sweep, "trial-0000", [0.25, 0.75, 0.5])
    assert sweep.goal.of(run) == (0.25, 3)
    assert sweep.goal.history(run) == [(0.75, 1), (0.25, 2), (0.25, 3)]
    with pytest.raises(RunError, match="validation yields no 'f1', but accuracy, loss"):
        Sweep(recipe, space(name="t", metric="f1", mode="max")).goal.of(run)


@pytest.mark.long
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_validation_that_is_no_number_never_wins(sweep, nothing):
    run = add_run(sweep, "trial-0000", [0.25, 0.75, 0.5])
    rows = run.metrics()
    rows[0]["accuracy"] = nothing
    rows[2]["accuracy"] = nothing
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert sweep.goal.history(run) == [(0.75, 2), (0.75, 3)]
    write_page(sweep, [sweep.trial("trial-0000", {LR: 1e-3, HEADS: 1}, "stopped")], None)
    run.metrics_file.write_text(json.dumps(rows[0]) + "\n")
    assert sweep.goal.of(run) is None
    assert sweep.trial("trial-0000", {LR: 1e-3, HEADS: 1}, "stopped").value is None


def three_stages(recipe):
    raw = recipe.to_dict()
    more = raw["stages"][-1] | {"name": "more", "init_from": "answer"}
    return parse(raw | {"stages": [*raw["stages"], more]})


def test_trials_share_every_stage_that_their_fields_do_not_touch(recipe):
    three, rate = three_stages(recipe), {"log_uniform": [1e-4, 1e-2]}
    shared = {
        "stages.more.folds.index": ["reconstruct", "answer"],
        "stages.answer.optimizer.lr": ["reconstruct"],
    }
    for number, (key, names) in enumerate(shared.items()):
        ranges = rate if key.endswith("lr") else {"grid": [0, 1]}
        fields = {key: ranges, "stages.more.optimizer.eps": rate}
        sweep = Sweep.create(three, space(name=f"s{number}", fields=fields, samples=2))
        assert [stage.name for stage in sweep.shared_recipe().stages] == names


def test_values_are_averaged_over_the_folds_of_a_stage(recipe):
    fold = "stages.answer.folds.index"
    fields = {LR: {"choice": [1e-3, 2e-3]}, fold: {"choice": [0, 1]}}
    sweep = Sweep.create(recipe, space(name="folds", fields=fields))
    values = [(1e-3, 0, 0.9), (1e-3, 1, 0.1), (2e-3, 0, 0.6), (2e-3, 1, 0.6)]
    trials = [
        Trial(name=f"trial-{n:04d}", location="", values={LR: lr, fold: index}, state="finished",
              value=value)
        for n, (lr, index, value) in enumerate(values)
    ]  # fmt: skip
    best = sweep.best(trials)
    assert best.values == {LR: 2e-3} and best.value == pytest.approx(0.6)


def test_validations_every_n_steps_are_the_clock_of_a_search(recipe):
    every = parse(recipe.to_dict(), ["stages.answer.validate.every_steps=10"])
    run = add_run(Sweep.create(every, space(name="e")), "trial-0000", [0.25, 0.75, 0.5])
    rows = [row | {"epoch": 0} for row in run.metrics()]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert Sweep(every, space(name="e")).goal.history(run) == [(0.25, 1), (0.75, 2), (0.75, 3)]


def test_the_last_validation_counts_where_the_last_checkpoint_is_the_result(recipe):
    last = parse(recipe.to_dict(), ["stages.answer.select=last"])
    run = add_run(Sweep.create(last, space(name="l")), "trial-0000", [0.25, 0.75, 0.5])
    assert Sweep(last, space(name="l")).goal.history(run) == [(0.25, 1), (0.75, 2), (0.5, 3)]


def add_checkpoint(run, stage="answer"):
    folder = run.stage_dir(stage) / "step-00000010"
    folder.mkdir(parents=True)
    info = {"score": 0.5, "finished": False, "files": {}, "position": {"step": 10}}
    (folder / "checkpoint.json").write_text(json.dumps(info))


def test_a_changed_search_is_refused(sweep, recipe):
    add_checkpoint(add_run(sweep, "trial-0000", [0.25]))
    Sweep.create(recipe, space(concurrent=1))
    with pytest.raises(RunError, match="space: samples"):
        Sweep.create(recipe, space(samples=5))
    with pytest.raises(RunError, match=r"seed: 0 -> 1"):
        Sweep.create(parse(recipe.to_dict(), ["seed=1"]), space())


@pytest.mark.long
def test_a_search_without_any_checkpoint_may_be_put_right(recipe):
    """The runs of its trials are made anew, and what they share stays."""
    rates = {LR: {"log_uniform": [1e-4, 1e-2]}}

    def space(samples=4):
        return parse_space({"name": "s", "fields": rates, "samples": samples})

    sweep = Sweep.create(recipe, space())
    shared = Run.create(sweep.shared_recipe())
    add_checkpoint(shared, "reconstruct")
    trial = Run.create(sweep.trial_recipe("trial-0000", {LR: 1e-3}))
    trial.stage_dir("reconstruct").symlink_to(shared.stage_dir("reconstruct"))
    assert Sweep.create(recipe, space(samples=5)).begun() == {}
    assert shared.checkpoints("reconstruct")
    assert read_file(sweep.path / "space.yaml")["samples"] == 5
    # A checkpoint of the shared stage would be lost.
    other = parse(recipe.to_dict(), ["seed=1"])
    with pytest.raises(RunError, match="seed: 0 -> 1"):
        Sweep.create(other, space(samples=5))
    shutil.rmtree(shared.stage_dir("reconstruct"))
    Sweep.create(other, space(samples=5))
    assert not shared.path.exists()


def test_what_has_ended_is_known_from_the_runs_alone(sweep):
    """A search that was killed has nothing else to go on from."""
    for number in (0, 1, 2, 4):
        add_run(sweep, f"trial-{number:04d}", [0.25])
    (sweep.path / "trial-0003").mkdir()  # killed before it had a recipe
    sweep.conclude("trial-0000")
    write_outcome(open_folder(sweep.path / "trial-0001"), "failed", "no")
    sweep.conclude("trial-0001")
    # Its workers were taken away while it was being stopped.
    write_outcome(open_folder(sweep.path / "trial-0004"), "failed", "died", again=True)
    sweep.conclude("trial-0004")
    begun = sweep.begun()
    assert [trial.state for trial in begun.values()] == ["stopped", "failed", "waiting", "stopped"]
    assert [trial.ended for trial in begun.values()] == [True, False, False, True]
    assert begun["trial-0001"].message == "no"
    assert begun["trial-0002"].values == {LR: 1e-3, HEADS: 1}


def test_the_best_recipe_can_be_trained(sweep, recipe):
    trials = [trial(sweep, 0, 0.2), trial(sweep, 1, None), trial(sweep, 2, 0.4)]
    ranked = sweep.ranked(trials)
    assert [t.name[-1] for t in ranked] == ["2", "0", "1"]
    assert sweep.write(ranked).value == 0.4
    best = load(sweep.path / "best.yaml")
    assert best.stages[1].optimizer.lr == pytest.approx(3e-3)
    assert best.runs == recipe.runs
    table = pq.read_table(sweep.path / "trials.parquet").to_pylist()
    assert [row["accuracy"] for row in table] == [0.4, 0.2, None]
    assert [row[LR] for row in table] == pytest.approx([3e-3, 1e-3, 2e-3])


def test_folds_count_with_their_mean_and_leave_the_best_recipe(sweep):
    fold = "folds.index"
    trials = [
        trial(sweep, 0, 0.9, **{fold: 0, LR: 0.1}),
        trial(sweep, 1, 0.1, **{fold: 1, LR: 0.1}),
        trial(sweep, 2, 0.6, **{fold: 0, LR: 0.2}),
        trial(sweep, 3, 0.8, **{fold: 1, LR: 0.2}),
        trial(sweep, 4, 1.0, **{fold: 0, LR: 0.3}),  # its other fold is not done
    ]
    best = sweep.best(trials)
    assert best.value == pytest.approx(0.7) and best.spread == pytest.approx(0.02**0.5)
    assert best.values == {LR: 0.2, HEADS: 1}


def test_no_trial_with_a_number_has_no_best(sweep):
    assert sweep.write([trial(sweep, 0, None)]) is None
    assert not (sweep.path / "best.yaml").exists()


@pytest.mark.parametrize(
    ("workers", "cpus", "gpus", "have", "expected"),
    [
        (1, 1.0, 0.0, Resources(2, 0), 2),
        (2, 1.0, 0.0, Resources(2, 0), 1),
        (1, 0.1, 0.0, Resources(2, 0), 4),  # no more than there are trials
        (1, 2.0, 1.0, Resources(64, 3), 3),
        (2, 1.0, 0.25, Resources(64, 1), 2),
        (1, 1.0, 0.0, Resources(1, 0), 1),
        (1, 2.0, 0.0, Resources(6, 0, (Resources(3, 0), Resources(3, 0))), 2),
        (2, 2.0, 0.0, Resources(6, 0, (Resources(3, 0), Resources(3, 0))), 1),
    ],
)
def test_as_many_trials_run_at_once_as_fit(workers, cpus, gpus, have, expected):
    assert concurrency(Placement(workers, cpus, gpus), have, space()) == expected
    assert concurrency(Placement(workers, cpus, gpus), have, space(concurrent=1)) == 1


def test_the_page_shows_every_trial_and_escapes_what_it_shows(sweep):
    add_run(sweep, "trial-0000", [0.25, 0.75])
    broken = trial(sweep, 1, None)
    broken = Trial(**{**vars(broken), "state": "failed", "message": "<script>no</script>"})
    trials = sweep.ranked([sweep.trial("trial-0000", {LR: 1e-3, HEADS: 1}, "stopped"), broken])
    text = Path(write_page(sweep, trials, sweep.best(trials))).read_text()
    assert "trial-0000" in text and "trial-0001" in text and text.count("<svg") == 2
    assert "<script>" not in text and "&lt;script&gt;" in text
    _, heads, accuracy = coordinates(sweep, trials)
    assert list(heads.ticks.values()) == ["1", "2"] and heads.places == [0.0, 0.0]
    assert accuracy.places == [0.0, None]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """An object store that can be stopped and started again."""
    monkeypatch.setenv("MSVQA_CACHE", str(tmp_path / "cache"))
    with object_store() as server:
        yield server


def of_tune(number):
    """Return a trial of Tune, which runs."""
    from ray.tune.experiment import Trial

    config = {"trial": {"number": number, LR: 1e-3, HEADS: 1}}
    name = f"trial-{number:04d}"
    found = Trial("trial", stub=True, config=config, trial_name_creator=lambda _: name)
    found.set_status(Trial.RUNNING)
    return found


@pytest.mark.ray
def test_a_search_goes_on_while_an_object_store_is_away(sweep, recipe, server, caplog):
    for number, accuracy in enumerate((0.5, 0.75)):
        add_run(sweep, f"trial-{number:04d}", [0.25, accuracy])
    there, said = f"s3://{BUCKET}/runs", []
    send(Path(recipe.runs), there)
    searched = Sweep(parse(recipe.to_dict(), [f"runs={there}"]), space())
    telling = Telling(searched, lambda t: said.append((t.name, t.state, t.value)))
    callback = watcher(telling, Placement(1, 1.0, 0.0))
    first, second = of_tune(0), of_tune(1)
    callback.on_trial_result(0, [], second, {})
    assert said == [("trial-0001", "running", 0.75)]

    server.stop()
    callback.on_trial_complete(0, [], first)
    assert "cannot be" in caplog.text and "The search goes on" in caplog.text
    assert len(said) == 1
    server.start()
    callback.on_trial_result(0, [], second, {})
    assert said[1:] == [("trial-0000", "stopped", 0.5)], "at the next occasion, and nothing twice"
    outcome = RemoteFolder(f"{searched.location}/trial-0000").get(OUTCOME)
    assert json.loads(outcome.read_text())["state"] == "stopped"

    server.stop()
    callback.on_trial_complete(0, [], second)
    back = threading.Timer(1.0, server.start)
    back.start()
    assert [trial.value for trial in telling.last([first, second])] == [0.5, 0.75], "it waits"
    assert said[2:] == [("trial-0001", "stopped", 0.75)]
    back.join()


@pytest.mark.ray
def test_a_search_does_not_wait_for_ever_for_its_results(sweep, recipe, server):
    add_run(sweep, "trial-0000", [0.25])
    there = f"s3://{BUCKET}/runs"
    send(Path(recipe.runs), there)
    changes = [f"runs={there}", "faults.storage_wait_s=0"]
    searched = Sweep(parse(recipe.to_dict(), changes), space())
    server.stop()
    with pytest.raises(StorageError, match=r"Tried for 0 s \(faults.storage_wait_s\)"):
        Telling(searched, None).last([of_tune(0)])
