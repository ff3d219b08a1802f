"""What the verbs must leave behind, on every machine."""

from collections import Counter
from collections.abc import Iterable, Iterator

from benchmarks.full_shape.data_set import Rows
from benchmarks.full_shape.verbs import STEPS, Place
from benchmarks.measure import Count
from msvqa.data.order import plan_epoch
from msvqa.data.prepared import Prepared
from msvqa.data.split import Split
from msvqa.data.store import Store
from msvqa.run import Run


def counts(place: Place, rows: Rows) -> Iterator[Count]:
    """Yield what is the same on every machine, from what the verbs have left."""
    asked_about = {row["video_id"] for asked in rows.values() for row in asked}
    for kind in ("clips", "features"):
        store = Store.open(place.store(kind))
        yield equal(f"videos in the store of {kind}", len(store), len(asked_about))
        yield equal(f"videos that could not be read, {kind}", len(store.rejected), 0)
    run = Run.open(place.run("dualvgr"))
    prepared = Prepared.open(place.prepared)
    for split, asked in rows.items():
        found = len(prepared.split(split).examples)
        yield equal(f"questions prepared, {split}", found, len(asked))
    yield from _epoch(place, run, prepared.split("train"))
    metrics, table = run.evaluation("test")
    answered = table["question_id"].to_pylist()
    wanted = sorted(row["id"] for row in rows["test"])
    yield equal("answers, test", len(answered), len(wanted))
    yield equal("questions of test that are answered once", once_of(answered, wanted), len(wanted))
    yield equal("answers that are counted, test", metrics["n"], len(wanted))
    steps = [row["step"] for row in place.rows("msvqa") if row["kind"] == "train"]
    made = once_of(steps, range(1, STEPS + 1))
    yield equal("steps that are logged once, interrupted and resumed", made, STEPS)
    trials = [*place.run("trials-two").glob("trial-*/recipe.yaml")]
    yield equal("trials", len(trials), 2)


def _epoch(place: Place, run: Run, split: Split) -> Iterator[Count]:
    """Yield how often questions count in the epoch that was trained, and if all was trained."""
    plan = plan_epoch(split, run.recipe.stages[-1].batch, seed=run.recipe.seed, epoch=0)
    counting = plan.rows[plan.weight > 0].tolist()
    found = once_of(counting, range(len(split)))
    yield equal("questions that count once in the epoch", found, len(split))
    yield equal("steps of the epoch", place.last_step("dualvgr"), plan.steps)


def once_of(found: Iterable[int], wanted: Iterable[int]) -> int:
    """Return how many of the wanted were found exactly once."""
    times = Counter(found)
    return sum(times[number] == 1 for number in wanted)


def equal(name: str, value: float, target: float) -> Count:
    """Return what must be a number."""
    return Count(name, value, f"== {target}")
