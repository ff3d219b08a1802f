"""MVBench: which option does a model choose, and how much of that does it owe to the video?

The letter that is the likeliest to come next is the answer: none is invalid. What a model says in
words, other ways to ask and the counting of other programs are those of `msvqa mvbench`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from msvqa.errors import RecipeError
from msvqa.evaluators.evaluator import Answers, Case, Evaluator, Predictor, Sheet
from msvqa.metrics import mean, wilson_interval
from msvqa.mvbench.tasks import BY_NAME, TASKS

if TYPE_CHECKING:
    from msvqa.data.split import Split

CASES = 6


class MVBench(Evaluator):
    """Accuracy over all questions, by task, and with black frames."""

    name = "mvbench"
    monitor: ClassVar[tuple[str, Literal["max", "min"]]] = ("accuracy", "max")
    numbers: ClassVar[tuple[str, ...]] = ("accuracy", "macro")

    def ask(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return the chosen option of each question and its probability, (n,) both.

        Raises:
            RecipeError: the objective has no answer `letters`.
        """
        if not predictor.answers("letters"):
            raise RecipeError(["evaluation.name: the stage's objective has no answer `letters`"])
        return dict(predictor("letters"))

    def ask_besides(self, predictor: Predictor, split: "Split") -> dict[str, np.ndarray]:
        """Return what is chosen where the frames are black, (n,)."""
        if not predictor.answers("blind_letters"):
            return {}
        return {"blind": predictor("blind_letters")["chosen"]}

    def validate(self, answers: Answers, split: "Split") -> dict[str, float]:
        """Return the mean over questions and the mean over tasks."""
        right = answers["chosen"] == _answer(split)
        tasks = _by_task(split)
        return {
            "accuracy": mean(right),
            "macro": mean(np.array([mean(right[rows]) for rows in tasks.values()])),
        }

    def evaluate(
        self, answers: Answers, split: "Split", train: "Split", kinds: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Return all numbers; below full coverage the average is a partial one."""
        found = super().evaluate(answers, split, train, kinds)
        gold = _answer(split)
        right = answers["chosen"] == gold
        counts = np.asarray(split.examples.table["options"].combine_chunks().value_lengths())
        found["coverage"] = len(split) / split.expected if split.expected else float("nan")
        found["guessing"] = mean(1 / counts)
        if "blind" in answers:
            found["blind_accuracy"] = mean(answers["blind"] == gold)
        found["tasks"] = {
            name: {
                "n": len(rows),
                "accuracy": mean(right[rows]),
                "interval": wilson_interval(int(right[rows].sum()), len(rows)),
                **({"blind": mean((answers["blind"] == gold)[rows])} if "blind" in answers else {}),
            }
            for name, rows in _by_task(split).items()
        }
        return found

    @classmethod
    def sheet(cls, metrics: Mapping[str, Any]) -> Sheet:
        """Return a row for each task, one for all, and one for guessing, in percent."""
        columns = ("task", "", "n", "accuracy", "95 % interval", "black frames")
        rows: list[tuple[str | float | None, ...]] = [
            (
                name, BY_NAME[name].abbreviation, of["n"], _percent(of["accuracy"]),
                _span(of["interval"]), _percent(of.get("blind")),
            )
            for name, of in metrics["tasks"].items()
        ]  # fmt: skip
        whole = "all" if metrics["coverage"] == 1 else "partial"
        n, accuracy = metrics["n"], metrics["accuracy"]
        interval = _span(wilson_interval(round(accuracy * n), n))
        blind = _percent(metrics.get("blind_accuracy"))
        rows.append((whole, "", n, _percent(accuracy), interval, blind))
        rows.append(("guessing", "", "", _percent(metrics["guessing"]), "", ""))
        return Sheet(columns, rows)

    @classmethod
    def cases(cls, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Case]]:
        """Return questions that the model is surest of, right and wrong ones, each of a task."""
        parts = {"Surest and right": True, "Surest and wrong": False}
        surest: dict[str, dict[str, Mapping[str, Any]]] = {title: {} for title in parts}
        for row in sorted(rows, key=lambda row: -row["probability"]):
            for title, right in parts.items():
                if (row["chosen"] == row["answer"]) is right:
                    surest[title].setdefault(row["task"], row)
        return {
            title: [_case(row) for row in of_tasks.values()][:CASES]
            for title, of_tasks in surest.items()
        }


def _answer(split: "Split") -> np.ndarray:
    return np.asarray(split.examples.table["answer"].to_numpy())


def _by_task(split: "Split") -> dict[str, np.ndarray]:
    """Return the rows of each task that has some, in the order of the leaderboard."""
    task = np.array(split.examples.table["task"].to_pylist())
    found = {one.name: np.flatnonzero(task == one.name) for one in TASKS}
    return {name: rows for name, rows in found.items() if len(rows)}


def _percent(part: float | None) -> str | None:
    return None if part is None else f"{100 * part:.1f}"


def _span(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def _case(row: Mapping[str, Any]) -> Case:
    options = row["options"]
    said = f"{row['question']} {options[row['chosen']]} ({row['probability']:.0%})"
    if row["chosen"] != row["answer"]:
        said += f"; right: {options[row['answer']]}"
    return Case(said, [(row["medium"], row["task"])])
