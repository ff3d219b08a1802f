"""The command line: one sub-command for each verb.

Verbs are imported when they are called, so that `--help` and shell completion answer at once.
"""

import argparse
import json
import logging
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from msvqa import __version__, profiling
from msvqa.console.chat import add_chat
from msvqa.console.mvbench import add_actions
from msvqa.console.progress import ProgressLines
from msvqa.console.similar import add_similar, add_titles, print_compared
from msvqa.console.streams import failure_of, open_streams, takes_all_characters
from msvqa.console.tables import (
    print_accuracy,
    print_answers,
    print_merged,
    print_report,
    print_search,
    print_sheet,
    print_store,
)
from msvqa.console.words import Parser
from msvqa.errors import StoppedError
from msvqa.failures import as_error
from msvqa.interruption import EXIT_BY_SIGNAL, INTERRUPTED, Interruption, end_process

if TYPE_CHECKING:
    from msvqa.recipe import Recipe

EXIT_PROBLEMS = 1
"""The answer is no: `doctor` found problems, `recipe diff` found differences."""
EXIT_ERROR = 2
EXIT_BROKEN_PIPE = 141
PROBLEMS_FILE = "problems.parquet"


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command, and end this process with its exit code."""
    open_streams()
    end_process(main(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0; 1, see `EXIT_PROBLEMS`; 2, an error; 130 or 143, ended by SIGINT or SIGTERM.
    """
    arguments = _parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("msvqa").setLevel(logging.INFO)
    with Interruption() as interruption:
        try:
            code = _perform(arguments)
            if not (code and interruption.came):
                return code
        except KeyboardInterrupt:
            pass
        except Exception:
            # The exception of a signal breaks what it comes in the middle of.
            if interruption.came is None:
                raise
            if arguments.traceback:
                traceback.print_exc()
        interruption.settle()
        _tell(INTERRUPTED)
        return interruption.exit_code


def _perform(arguments: argparse.Namespace) -> int:
    try:
        from msvqa.machine import name_user

        name_user()
        with profiling.of_command(arguments.profile, arguments.command):
            code: int = arguments.run(arguments)
        sys.stdout.flush()
        if failure := failure_of(sys.stdout):
            code = _unprinted(arguments, failure, code)
    except StoppedError as stopped:
        _tell(stopped)
        return EXIT_BY_SIGNAL + (stopped.signal_number or signal.SIGTERM)
    except Exception as error:
        ours = as_error(error)
        if ours is None:
            raise
        if arguments.traceback:
            traceback.print_exc()
        else:
            hint = "" if ours is error else "; --traceback shows where it was met"
            _tell(f"error: {ours}{hint}")
        return EXIT_ERROR
    return code


def _unprinted(arguments: argparse.Namespace, failure: OSError, code: int) -> int:
    """Return the exit code of a command whose words could not be printed, and say so."""
    is_answer = arguments.run in (_doctor, _predict, _recipe_show, _recipe_diff, _completion)
    is_answer |= getattr(arguments, "is_answer", False)
    if isinstance(failure, BrokenPipeError):
        # `msvqa … | head` is no error.
        return EXIT_BROKEN_PIPE if is_answer else code
    if is_answer:
        _tell(f"error: the answer cannot be printed: {failure}")
        return EXIT_ERROR
    _tell(f"standard output cannot be written ({failure}): the work is done all the same")
    return code


def _tell(words: object) -> None:
    # Ctrl-C ends all of `msvqa … 2>&1 | tee FILE`: nobody may be there to read.
    with suppress(OSError):
        print(words, file=sys.stderr, flush=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse cannot take up `key=value` words that follow an option such as --dry-run.
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    if rest and (len(overrides) < len(rest) or not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if overrides:
        arguments.overrides = [*arguments.overrides, *overrides]
    return arguments


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = Parser(prog="msvqa", description="Train, evaluate and ask models of video on Ray.")
    parser.add_argument("--version", action="version", version=f"msvqa {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_doctor(verbs)
    _add_prepare(verbs)
    _add_extract(verbs)
    _add_train(verbs)
    _add_tune(verbs)
    _add_evaluate(verbs)
    _add_merge(verbs)
    _add_predict(verbs)
    add_chat(_verb, verbs)
    add_similar(_verb, verbs)
    _add_report(verbs)
    _add_recipe(verbs)
    _add_mvbench(verbs)
    _add_completion(verbs)
    return parser


def _add_doctor(verbs: Any) -> None:
    verb = _verb(verbs, "doctor", _doctor, "check this machine, a recipe and a folder of videos")
    verb.add_argument("recipe", nargs="?", metavar="RECIPE", help="recipe to check as well")
    _add_overrides(verb)
    verb.add_argument("--data", metavar="DIR", help="check every video and annotation in DIR")
    verb.add_argument(
        "--out",
        metavar="FILE",
        default=PROBLEMS_FILE,
        help="table of what --data finds (default: %(default)s)",
    )
    verb.add_argument(
        "--timeout", metavar="S", type=_positive, default=60.0, help="longest time for one video"
    )
    verb.add_argument(
        "--speed", action="store_true", help="measure, and say how many decode workers are needed"
    )


def _add_prepare(verbs: Any) -> None:
    verb = _verb(verbs, "prepare", _prepare, "read annotations: manifest, vocabulary, answer list")
    verb.add_argument("name", metavar="NAME", help="data set, for example msvd_qa")
    verb.add_argument("--root", metavar="DIR", required=True, help="folder of the data set")
    verb.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on when videos are missing; they are listed",
    )
    verb.add_argument("--out", metavar="DIR", help="folder to write (default: prepared/NAME-ID)")
    verb.add_argument("--word-vectors", metavar="FILE", help="GloVe file: .txt, .gz or .zip")
    verb.add_argument(
        "--answer-top", metavar="N", type=int, help="keep the N most frequent answers"
    )
    _add_overrides(verb, "other fields of the recipe's data section")


def _add_extract(verbs: Any) -> None:
    verb = _verb(verbs, "extract", _extract, "decode every video once: clip store or features")
    _add_recipe_argument(verb)
    _add_overrides(verb)
    verb.add_argument(
        "--hdf5",
        metavar="PREFIX",
        help="also write features as PREFIX_appearance_feat.h5 and so on",
    )


def _add_train(verbs: Any) -> None:
    verb = _verb(verbs, "train", _train, "train all stages of a recipe, or continue its run")
    _add_recipe_argument(verb)
    _add_overrides(verb)
    verb.add_argument(
        "--dry-run", action="store_true", help="build everything, run one batch, estimate the rest"
    )


def _add_tune(verbs: Any) -> None:
    verb = _verb(verbs, "tune", _tune, "search over fields of a recipe, or continue a search")
    _add_recipe_argument(verb)
    verb.add_argument("space", metavar="SPACE", help="search space, see configs/search")
    _add_overrides(verb)


def _add_evaluate(verbs: Any) -> None:
    verb = _verb(verbs, "evaluate", _evaluate, "answer every question of a split and count")
    verb.add_argument("path", metavar="RUN", help="run folder, for example runs/demo")
    verb.add_argument("--split", metavar="SPLIT", help="for example val or test")
    verb.add_argument(
        "--on",
        metavar="NAME",
        help="one of the recipe's `evaluations`, with data of its own",
    )
    verb.add_argument(
        "--rescore", action="store_true", help="count the answers of the last time again: no model"
    )
    _add_overrides(verb, "where data is and how much runs at once, this time: data.root=DIR")


def _add_merge(verbs: Any) -> None:
    verb = _verb(verbs, "merge", _merge, "make one embedding of each video from those of all runs")
    verb.add_argument("paths", metavar="RUN", nargs="+", help="folds and models, in any order")
    verb.add_argument("--on", metavar="NAME", help="one of the recipes' `evaluations`")
    verb.add_argument("--split", metavar="SPLIT", help="for example test")
    verb.add_argument(
        "--weights", metavar="W", nargs="+", type=float, help="of the models, as they come first"
    )
    verb.add_argument(
        "--how", choices=["sum", "concatenate"], default="sum", help="how models are joined"
    )
    verb.add_argument("--out", metavar="DIR", required=True, help="folder of the results")


def _add_predict(verbs: Any) -> None:
    verb = _verb(verbs, "predict", _predict, "answer a question about a video, or compare two")
    verb.add_argument("path", metavar="RUN", help="run folder, for example runs/demo")
    verb.add_argument("video", metavar="VIDEO", help="video file")
    verb.add_argument(
        "question",
        metavar="QUESTION",
        help="the question, in quotation marks; for a run that embeds videos the second VIDEO",
    )
    add_titles(verb, "of the videos to compare, in their order")
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.add_argument("--top-k", metavar="K", type=_count, default=5, help="answers to show (5)")


def _add_report(verbs: Any) -> None:
    verb = _verb(verbs, "report", _report, "write the HTML page of a run")
    verb.add_argument("path", metavar="RUN", help="run folder, for example runs/demo")


def _add_recipe(verbs: Any) -> None:
    recipe = verbs.add_parser("recipe", help="show a recipe with all defaults, or compare two")
    actions = recipe.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = _verb(actions, "show", _recipe_show, "print a recipe with every default written out")
    _add_recipe_argument(show)
    _add_overrides(show)
    diff = _verb(actions, "diff", _recipe_diff, "print the fields in which two recipes differ")
    diff.add_argument("recipe", metavar="A", help="recipe file or run folder")
    diff.add_argument("other", metavar="B", help="recipe file or run folder")


def _add_mvbench(verbs: Any) -> None:
    mvbench = verbs.add_parser("mvbench", help="ask, count and compare models on MVBench")
    actions = mvbench.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_actions(actions, _verb)


def _add_completion(verbs: Any) -> None:
    verb = _verb(verbs, "completion", _completion, "print a script that completes words in a shell")
    verb.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def _positive(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return number


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return number


def _verb(verbs: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    # Also after the verb; without SUPPRESS its default would undo the flag before the verb.
    verb.add_argument(
        "--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    verb.add_argument(
        "--profile", metavar="DIR", help="write traces and flame graphs, see docs/profiles.md"
    )
    command = verb.prog.partition(" ")[2].replace(" ", "-")
    verb.set_defaults(run=run, command=command)
    return verb


def _add_recipe_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recipe", metavar="RECIPE", help="recipe file, or a run folder that has one")


def _add_overrides(
    verb: argparse.ArgumentParser, what: str = "fields to change, for example stages.1.epochs=2"
) -> None:
    verb.add_argument("overrides", nargs="*", metavar="key=value", default=[], help=what)


def _load_recipe(path: str, overrides: Sequence[str] = ()) -> "Recipe":
    from msvqa.run import load_recipe

    return load_recipe(path, overrides)


def _doctor(arguments: argparse.Namespace) -> int:
    from msvqa.doctor import doctor
    from msvqa.storage import open_folder

    if arguments.data is not None and arguments.out != PROBLEMS_FILE:
        # Where it was named; elsewhere the report is worth its time also without the file.
        open_folder(Path(arguments.out).absolute().parent).create()
    recipe, overrides = arguments.recipe, arguments.overrides
    if recipe is not None and "=" in recipe and not Path(recipe).exists():
        recipe, overrides = None, [recipe, *overrides]
    report = doctor(
        recipe,
        arguments.data,
        overrides=overrides,
        timeout_s=arguments.timeout,
        speed=arguments.speed,
    )
    print_report(report)
    if arguments.data is not None:
        # Last, since it may fail, and an hour of reading is in the report.
        report.write_problems(Path(arguments.out))
        if report.problems:
            print(f"Every problem by name: {report.problems_file}")
    return EXIT_PROBLEMS if report.failed else 0


def _prepare(arguments: argparse.Namespace) -> int:
    from msvqa.prepare import prepare, summary
    from msvqa.recipe import parse_data

    given = {
        "root": arguments.root,
        "allow_missing": arguments.allow_missing,
        "prepared": arguments.out,
        "word_vectors": arguments.word_vectors,
        "answer_top": arguments.answer_top,
    }
    fields = {key: value for key, value in given.items() if value is not None}
    prepared = prepare(parse_data(arguments.name, arguments.overrides, **fields))
    for line in [prepared.location, *summary(prepared)]:
        print(line)
    return 0


def _extract(arguments: argparse.Namespace) -> int:
    recipe = _load_recipe(arguments.recipe, arguments.overrides)
    from msvqa.extract import extract, speed_line

    hdf5 = Path(arguments.hdf5) if arguments.hdf5 else None
    lines = ProgressLines()
    store = extract(recipe, hdf5=hdf5, progress=lines.on_extract)
    lines.close()
    print_store(store)
    print(speed_line(recipe, store))
    return 0


def _train(arguments: argparse.Namespace) -> int:
    recipe = _load_recipe(arguments.recipe, arguments.overrides)
    from msvqa.train import Progress, dry_run, train

    lines = ProgressLines()
    progress = Progress(
        on_row=lines.on_row,
        on_extract=lines.on_extract,
        on_stage=lines.on_stage,
        on_speed=lines.say,
    )
    if arguments.dry_run:
        for estimate in dry_run(recipe):
            lines.say(str(estimate))
        return 0
    run = train(recipe, progress)
    lines.say(f"Run: {run.location}")
    return 0


def _tune(arguments: argparse.Namespace) -> int:
    from msvqa.space import load_space
    from msvqa.train import Progress
    from msvqa.tune import tune

    recipe = _load_recipe(arguments.recipe, arguments.overrides)
    space = load_space(arguments.space)
    lines = ProgressLines()
    progress = Progress(on_row=lines.on_row, on_extract=lines.on_extract, on_stage=lines.on_stage)
    result = tune(recipe, space, progress, lines.on_trial)
    lines.close()
    print_search(result)
    return 0 if result.best else EXIT_PROBLEMS


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.rescore:
        from msvqa.evaluate import rescore as count
    else:
        from msvqa.evaluate import evaluate as count
    metrics = count(arguments.path, arguments.split, arguments.overrides, arguments.on)
    _print_metrics(metrics, arguments.path)
    return 0


def _merge(arguments: argparse.Namespace) -> int:
    from msvqa.merge import Wanted, merge

    wanted = Wanted(
        on=arguments.on, split=arguments.split, weights=arguments.weights, how=arguments.how
    )
    print_merged(merge(arguments.paths, arguments.out, wanted))
    return 0


def _print_metrics(metrics: Mapping[str, Any], run: str) -> None:
    """Print what an evaluation has counted: what is in its metrics.json."""
    name = f"split {metrics['split']}"
    if "evaluation" in metrics:
        name = f"evaluation {metrics['evaluation']}, {name}"
    title = f"{run}, {name}: {metrics['n']} of {metrics['n_expected']}"
    if "per_type" in metrics:
        print_accuracy(metrics, f"{title} questions")
        return
    from msvqa.evaluate import sheet_of

    print_sheet(sheet_of(metrics), title)


def _predict(arguments: argparse.Namespace) -> int:
    from msvqa.errors import RunError
    from msvqa.predict import compare, compares, predict, talk, talks_about

    if compares(arguments.path):
        videos = (arguments.video, arguments.question)
        print_compared(
            compare(arguments.path, videos, arguments.title, on=arguments.on), videos, arguments
        )
        return 0
    if arguments.title or arguments.on:
        raise RunError(
            f"{arguments.path} answers questions: --title and --on are for runs that compare videos"
        )
    if talks_about(arguments.path):
        _print_said(talk(arguments.path, arguments.video, arguments.question), arguments)
        return 0
    answers = predict(arguments.path, arguments.video, arguments.question, top_k=arguments.top_k)
    if arguments.json:
        content = {
            "run": arguments.path,
            "video": arguments.video,
            "question": arguments.question,
            "answers": [
                {"answer": answer.text, "probability": answer.probability} for answer in answers
            ],
        }
        print(json.dumps(content, indent=2, ensure_ascii=not takes_all_characters(sys.stdout)))
        return 0
    print_answers(answers, f"{arguments.question}  [{arguments.video}, {arguments.path}]")
    return 0


def _print_said(answer: str, arguments: argparse.Namespace) -> None:
    if not arguments.json:
        print(answer)
        return
    content = {"run": arguments.path, "video": arguments.video, "question": arguments.question}
    whole = content | {"answer": answer}
    print(json.dumps(whole, indent=2, ensure_ascii=not takes_all_characters(sys.stdout)))


def _report(arguments: argparse.Namespace) -> int:
    from msvqa.report import report
    from msvqa.run import Run

    page = report(arguments.path)
    run = Run.open(arguments.path)
    for name in run.evaluated():
        _print_metrics(run.metrics_of(name), arguments.path)
    print(f"Report: {page}")
    return 0


def _recipe_show(arguments: argparse.Namespace) -> int:
    recipe = _load_recipe(arguments.recipe, arguments.overrides)
    print(recipe.to_yaml(ascii_only=not takes_all_characters(sys.stdout)), end="")
    return 0


def _recipe_diff(arguments: argparse.Namespace) -> int:
    from msvqa.recipe import differences

    lines = differences(_load_recipe(arguments.recipe), _load_recipe(arguments.other))
    for line in lines:
        print(line)
    return EXIT_PROBLEMS if lines else 0


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    parser = build_parser()
    _complete_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=arguments.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, file: Any, folder: Any) -> None:
    """Mark the arguments that are paths, in this parser and its sub-commands."""
    paths = {"RECIPE": file, "A": file, "B": file, "VIDEO": file, "FILE": file, "PREFIX": file}
    paths |= {"SPACE": file, "RUN": folder, "DIR": folder}
    for action in parser._actions:
        if action.metavar in paths:
            action.complete = paths[action.metavar]  # type: ignore[attr-defined]
        if isinstance(action.choices, dict):
            for verb in action.choices.values():
                _complete_paths(verb, file, folder)
