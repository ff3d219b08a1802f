"""The command line: its words, its exit codes and how quickly it answers."""

import argparse
import json
import logging
import os
import resource
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import msvqa
from msvqa import cli
from msvqa.checks.report import Check, Report
from msvqa.data.schema import Problem
from msvqa.engine.sweep import Best, Goal, Trial
from msvqa.errors import DataError
from msvqa.recipe import DataConfig
from msvqa.sections import NamedConfig
from msvqa.space import parse_space, plain
from msvqa.tune import Result

HELP_LIMIT_S = 0.3


class Films:
    class Config(DataConfig):
        pass


class Net:
    class Config(NamedConfig):
        width: int = 8


RECIPE = f"""
name: small
data: {{name: "{__name__}:Films", root: films}}
model: {{name: "{__name__}:Net"}}
stages:
  - {{name: first, objective: {{name: "{__name__}:Net"}}, steps: 3}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return str(file)


OF_QUESTIONS = {
    "compares": lambda run: False, "compare": None, "talks_about": lambda run: False, "talk": None,
}  # fmt: skip
"""What else there is of `predict`, for a run that answers questions."""


@pytest.fixture
def verb(monkeypatch):
    """Replace a verb; return the arguments it was called with."""

    def replace(name, result, extra=None):
        calls = []

        def function(*arguments, **options):
            calls.append((arguments, options))
            if isinstance(result, BaseException):
                raise result
            return result

        module = type(sys)(f"msvqa.{name}")
        setattr(module, name, function)
        for key, value in (extra or {}).items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, f"msvqa.{name}", module)
        return calls

    return replace


def child_seconds(command):
    """Return processor time, which other programs on this machine do not change much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.long
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_answers_at_once(words):
    command = [sys.executable, "-m", "msvqa", *words]
    assert statistics.median(child_seconds(command) for _ in range(5)) < HELP_LIMIT_S


def test_the_parser_imports_nothing_heavy():
    code = (
        "import sys; from msvqa import cli; cli.build_parser();"
        "heavy = {'torch', 'ray', 'numpy', 'pydantic', 'rich', 'yaml', 'pyarrow'};"
        "print(*(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_version_is_the_package_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"msvqa {msvqa.__version__}\n"


def subcommands(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def test_every_verb_is_there_and_says_what_it_does():
    verbs = subcommands(cli.build_parser())
    known = {"doctor", "prepare", "extract", "train", "tune", "evaluate", "predict", "report"}
    assert set(verbs) == {*known, "merge", "similar", "chat", "recipe", "mvbench", "completion"}
    assert set(subcommands(verbs["recipe"])) == {"show", "diff"}
    of_mvbench = {"run", "score", "compare", "doctor", "make-mini", "make-lessons"}
    assert set(subcommands(verbs["mvbench"])) == of_mvbench
    for action in cli.build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)


@pytest.mark.parametrize("words", [[], ["tarin"], ["train"], ["train", "a", "--bogus"], ["report"]])
def test_words_that_are_not_understood_exit_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert "usage: msvqa" in capsys.readouterr().err


def test_overrides_may_stand_before_and_after_options():
    words = ["train", "r.yaml", "seed=1", "--dry-run", "stages.1.optimizer.lr=3e-4"]
    arguments = cli._parse(words)
    assert arguments.dry_run
    assert arguments.overrides == ["seed=1", "stages.1.optimizer.lr=3e-4"]
    assert cli._parse(["train", "--dry-run", "r.yaml", "seed=1"]).overrides == ["seed=1"]


def test_a_word_that_is_no_override_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "r.yaml", "--dry-run", "seed"])
    assert "unrecognized arguments: seed" in capsys.readouterr().err


def test_an_error_is_a_message_without_traceback(capsys, verb):
    verb("report", DataError("runs/x: no such run"))
    assert cli.main(["report", "runs/x"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: runs/x: no such run\n"
    assert captured.out == ""


@pytest.mark.parametrize("words", [["--traceback", "report", "x"], ["report", "x", "--traceback"]])
def test_traceback_shows_where_an_error_comes_from(words, capsys, verb):
    verb("report", DataError("nothing"))
    assert cli.main(words) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_unexpected_error_is_not_hidden(verb):
    verb("report", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["report", "x"])


def test_an_interrupt_is_one_sentence_and_130(capsys, verb):
    verb("report", KeyboardInterrupt())
    assert cli.main(["report", "x"]) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_termination_is_one_sentence_and_143(capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("msvqa.report.report", lambda path: os.kill(os.getpid(), signal.SIGTERM))
    try:
        assert cli.main(["report", "x"]) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("broken", [OSError("a file"), DataError("a row")])
def test_what_breaks_by_a_signal_is_an_interrupt(broken, capsys, monkeypatch):
    def report(path):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise broken from None

    monkeypatch.setattr("msvqa.report.report", report)
    assert cli.main(["report", "x"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("Interrupted")


def test_a_closed_pipe_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "msvqa", "completion", "bash"]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, "")


def test_logging_of_the_caller_is_left_alone(verb):
    verb("predict", [], OF_QUESTIONS)
    before = list(logging.getLogger().handlers)
    assert cli.main(["predict", "run", "a.avi", "who?"]) == 0
    assert before == logging.getLogger().handlers


def test_recipe_show_prints_every_default(recipe, capsys):
    assert cli.main(["recipe", "show", recipe, "seed=5", "model.width=9"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 5" in shown
    assert "width: 9" in shown
    assert "num_clips: 8" in shown


def test_recipe_show_reports_all_mistakes(recipe, capsys):
    assert cli.main(["recipe", "show", recipe, "sede=5", "clips.num_clips=0"]) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message
    assert "did you mean 'seed'?" in message


def test_recipe_diff_says_what_differs(recipe, tmp_path, capsys):
    run = tmp_path / "runs" / "other"
    run.mkdir(parents=True)
    assert cli.main(["recipe", "show", recipe, "seed=3"]) == 0
    (run / "recipe.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.main(["recipe", "diff", recipe, str(run)]) == 1
    assert capsys.readouterr().out == "seed: 0 -> 3\n"
    assert cli.main(["recipe", "diff", recipe, recipe]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_the_verbs(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("evaluate", "predict", "completion"))


def test_bash_completes_a_verb_and_takes_the_script(capsys, tmp_path):
    cli.main(["completion", "bash"])
    script = tmp_path / "msvqa.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    code = (
        f"source {script}; COMP_WORDS=(msvqa ev); COMP_CWORD=1; COMP_LINE='msvqa ev'; COMP_POINT=8;"
        ' $(complete -p msvqa | sed "s/.*-F \\([^ ]*\\).*/\\1/"); echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluate"]


def test_prepare_hands_over_a_checked_data_section(verb, tmp_path, capsys):
    class Prepared:
        location = "prepared/films"

    calls = verb("prepare", Prepared(), {"summary": lambda prepared: ["train: 3 of 4 questions"]})
    words = ["prepare", f"{__name__}:Films", "--root", str(tmp_path), "--allow-missing"]
    assert cli.main([*words, "--out", "there", "answer_top=7"]) == 0
    ((config,), _) = calls[0]
    assert (config.root, config.allow_missing, config.answer_top) == (str(tmp_path), True, 7)
    assert config.prepared == str(Path("there").absolute())
    assert capsys.readouterr().out.splitlines() == [Prepared.location, "train: 3 of 4 questions"]


METRICS = {
    "split": "test",
    "accuracy": 0.5, "accuracy_interval": [0.25, 0.75], "type_only_accuracy": 0.125,
    "question_only_accuracy": 0.25, "best_possible": 0.9, "n": 8, "n_expected": 9,
    "baselines": {"question_only": 0.25, "best_possible": None},
    "per_type": {
        "what": {
            "accuracy": 0.75, "accuracy_interval": [0.5, 1.0], "type_only_accuracy": 0.2,
            "question_only_accuracy": 0.25, "best_possible": 1.0, "n": 4,
        },
        "who": {
            "accuracy": None, "accuracy_interval": [None, None], "type_only_accuracy": None,
            "question_only_accuracy": None, "best_possible": None, "n": 0,
        },
    },
}  # fmt: skip


def test_evaluate_prints_counts_beside_the_baseline(verb, capsys):
    calls = verb("evaluate", METRICS)
    assert cli.main(["evaluate", "runs/demo", "--split", "test", "data.root=there"]) == 0
    assert calls == [(("runs/demo", "test", ["data.root=there"], None), {})]
    out = capsys.readouterr().out
    assert "runs/demo, split test: 8 of 9 questions" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    interval = ["0.500", "to", "1.000"]
    assert rows["what"] == ["4", "0.7500", *interval, "0.2000", "0.2500", "1.0000"]
    assert "For comparison: question only 0.2500" in out
    assert rows["who"] == ["0"]
    interval = ["0.250", "to", "0.750"]
    assert rows["all"] == ["8", "0.5000", *interval, "0.1250", "0.2500", "0.9000"]


@pytest.mark.long
def test_doctor_shows_what_to_do_and_exits_with_1_on_a_failure(verb, capsys, monkeypatch, tmp_path):
    checks = [
        Check(name="ray", status="fail", detail="absent", advice="pip install 'ray[train]'"),
        Check(name="disk", status="ok", detail="9 GiB"),
    ]
    problems = [Problem(kind="partial", path=f"{n}.avi", detail="") for n in range(10)]
    report = Report(checks, problems)
    monkeypatch.chdir(tmp_path)
    calls = verb("doctor", report)
    assert cli.main(["doctor", "r.yaml", "--data", "videos", "--timeout", "5", "seed=1"]) == 1
    ((recipe, data), options) = calls[0]
    assert options["overrides"] == ["seed=1"]
    assert (recipe, data, options["timeout_s"]) == ("r.yaml", "videos", 5.0)
    out = capsys.readouterr().out
    assert "→ pip install 'ray[train]'" in out
    assert "partial (10): 0.avi, 1.avi" in out
    assert "… 2 more" in out
    assert "problems.parquet" in out
    assert len(pq.read_table("problems.parquet")) == 10
    report.checks.pop(0)
    assert cli.main(["doctor"]) == 0


def test_report_names_the_page_and_repeats_the_results(verb, recipe, tmp_path, capsys):
    verb("report", tmp_path / "run" / "report.html")
    folder = tmp_path / "run" / "evaluate" / "test"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    pq.write_table(pa.table({"question_id": [1]}), folder / "predictions.parquet")
    (tmp_path / "run" / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert cli.main(["report", "run"]) == 0
    out = capsys.readouterr().out
    assert "run, split test: 8 of 9 questions" in out
    assert out.splitlines()[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"


def test_tune_prints_every_trial_under_the_right_heading(verb, recipe, tmp_path, capsys):
    space = parse_space(
        {"name": "lr", "fields": {"stages.first.optimizer.lr": {"grid": [0.1]}}, "search": "grid"}
    )
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(plain(space)), encoding="utf-8")
    values = {"stages.first.optimizer.lr": 0.1}
    trial = Trial(name="trial-0000", location="", values=values, state="finished", value=0.5)
    goal = Goal("accuracy", "max", ("accuracy", "max"))
    sweep = SimpleNamespace(location="runs/small-lr", space=space, goal=goal)
    page = "runs/small-lr/search.html"
    verb("tune", Result(sweep, [trial], Best(values, 0.5, None, [trial]), page))
    assert cli.main(["tune", recipe, str(tmp_path / "space.yaml")]) == 0
    out = capsys.readouterr().out
    assert "runs/small-lr: 1 of 1 trials finished" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert rows["trial"] == ["optimizer.lr", "accuracy", "epochs", "steps", "time", "state"]
    assert rows["trial-0000"] == ["0.1", "0.5000", "0", "0", "0:00:00", "finished"]
    assert "Best accuracy on val: 0.5000 (trial-0000)" in out


class Answer:
    def __init__(self, text, probability):
        self.text, self.probability = text, probability


def test_predict_prints_answers_with_probabilities(verb, capsys):
    calls = verb("predict", [Answer("cat", 0.75), Answer("dog", 0.25)], OF_QUESTIONS)
    assert cli.main(["predict", "runs/demo", "[a].avi", "what runs?", "--top-k", "2"]) == 0
    assert calls == [(("runs/demo", "[a].avi", "what runs?"), {"top_k": 2})]
    shown = capsys.readouterr().out
    assert "what runs?  [[a].avi, runs/demo]" in shown
    assert "0.7500" in shown
    assert cli.main(["predict", "runs/demo", "a.avi", "what runs?", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["answers"][0] == {"answer": "cat", "probability": 0.75}
    assert content["question"] == "what runs?"
