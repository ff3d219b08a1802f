"""The command `mvbench`: its words, and its tables."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msvqa.console.progress import ProgressLines
from msvqa.console.tables import NAMES_SHOWN, print_table, table_of

if TYPE_CHECKING:
    from msvqa.mvbench.doctor import Diagnosis
    from msvqa.mvbench.results import Results
    from msvqa.mvbench.scores import Counts, Difference
    from msvqa.mvbench.tally import Pair, Tally

EXIT_PROBLEMS = 1
Add = Callable[[Any, str, Any, str], argparse.ArgumentParser]
"""Adds an action with what it runs and a summary, and returns its parser."""


def add_actions(actions: Any, add: Add) -> None:
    """Add the actions of `msvqa mvbench`."""
    _add_run(add(actions, "run", _run, "ask a model all questions, or go on with it"))
    score = add(actions, "score", _score, "count the answers of a result, by any matcher")
    score.add_argument("files", nargs="+", metavar="FILE", help="result, or all parts of one")
    _add_matcher(score)
    score.add_argument("--json", metavar="FILE", help="also write the numbers for a leaderboard")
    score.add_argument("--page", metavar="FILE", help="also write an HTML page with examples")
    compare = add(actions, "compare", _compare, "compare two results question by question")
    compare.add_argument("first", metavar="A", help="result of `run`")
    compare.add_argument("second", metavar="B", help="result of `run`")
    _add_matcher(compare)
    doctor = add(actions, "doctor", _doctor, "check annotations and media of MVBench")
    doctor.add_argument("root", metavar="DIR", help="folder of MVBench")
    doctor.add_argument("--media", action="store_true", help="read every medium to its end")
    doctor.add_argument(
        "--timeout", metavar="S", type=float, default=60.0, help="longest time for one medium"
    )
    for parser in (score, compare, doctor):
        # What they print is all that they are for.
        parser.set_defaults(is_answer=True)
    mini = add(actions, "make-mini", _make_mini, "draw a small MVBench of moving squares")
    mini.add_argument("root", metavar="DIR", help="folder that is absent or empty")
    mini.add_argument("--items", metavar="N", type=int, default=3, help="questions of a task (3)")
    mini.add_argument("--seed", metavar="N", type=int, default=0, help="chooses what is drawn")
    mini.add_argument(
        "--order", metavar="NAME", default="shuffled",
        help="of the options: shuffled (default), or fixed for each task",
    )  # fmt: skip
    lessons = add(actions, "make-lessons", _make_lessons, "draw videos for a small model to learn")
    lessons.add_argument("root", metavar="DIR", help="folder that is absent or empty")
    lessons.add_argument(
        "--items", metavar="N", type=int, default=150, help="videos of each task (150)"
    )
    lessons.add_argument(
        "--tested", metavar="N", type=int, default=12, help="questions of a task to be tested (12)"
    )
    lessons.add_argument("--seed", metavar="N", type=int, default=0, help="chooses what is drawn")


def _add_matcher(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--matcher",
        metavar="NAME",
        default="robust",
        help="robust (default), official_v1, official_v2, lmms_eval, vlmevalkit",
    )


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("root", metavar="DIR", help="folder of MVBench")
    run.add_argument("--out", metavar="FILE", required=True, help="result, a line per question")
    run.add_argument("--model", metavar="NAME", required=True, help="folder, run, or name there")
    run.add_argument("--server", metavar="URL", default="", help="OpenAI-compatible server")
    run.add_argument("--adapter", metavar="NAME", help="transformers, run, server or module:Class")
    run.add_argument("--prefill", action="store_true", help="the server continues begun answers")
    run.add_argument("--predict", metavar="HOW", default="generate", help="see docs/mvbench.md")
    run.add_argument(
        "--preset", metavar="NAME", default="official",
        help="words: official (default), paper, vlmevalkit, lmms_eval",
    )  # fmt: skip
    run.add_argument(
        "--sampler", metavar="NAME", default="evaluation",
        help="frames: evaluation (default), demo, vlmevalkit",
    )  # fmt: skip
    run.add_argument("--frames", metavar="N", type=int, default=16, help="of each clip (16)")
    run.add_argument(
        "--size", metavar="PX", type=int, default=448, help="longer side at most (448)"
    )
    run.add_argument("--tokens", metavar="N", type=int, default=100, help="of an answer (100)")
    run.add_argument(
        "--control", metavar="NAME", default="none", help="none, blind, shuffled or reversed"
    )
    run.add_argument("--circular", action="store_true", help="ask with options in every rotation")
    run.add_argument("--part", metavar="K/N", type=_part, default=(1, 1), help="only a part")
    run.add_argument("--device", metavar="NAME", default="cpu", help="cpu (default) or cuda")


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not slash or not number.isdecimal() or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"must be like 1/4, not {text}")
    return int(number), int(count)


def _run(arguments: argparse.Namespace) -> int:
    from msvqa.mvbench.adapters.adapter import Source, open_adapter
    from msvqa.mvbench.run import Plan, run

    plan = Plan(
        root=arguments.root,
        out=Path(arguments.out),
        preset=arguments.preset,
        predict=arguments.predict,
        sampler=arguments.sampler,
        frames=arguments.frames,
        size_px=arguments.size,
        control=arguments.control,
        circular=arguments.circular,
        part=arguments.part,
    )
    source = Source(
        model=arguments.model,
        server=arguments.server,
        prefill=arguments.prefill,
        max_new_tokens=arguments.tokens,
        device=arguments.device,
    )
    adapter = open_adapter(arguments.adapter or _adapter_for(arguments), source)
    lines = ProgressLines()
    try:
        results = run(adapter, plan, lambda done, total: lines.on_count("asked", done, total))
    finally:
        lines.close()
        adapter.close()
    print_scores(results, arguments.out)
    return 0


def _adapter_for(arguments: argparse.Namespace) -> str:
    """Return what asks a model: a server, one of our runs, or a folder of the library's."""
    if arguments.server:
        return "server"
    return "run" if (Path(arguments.model) / "recipe.yaml").is_file() else "transformers"


def _score(arguments: argparse.Namespace) -> int:
    from msvqa.files import write_json
    from msvqa.mvbench.results import joined, read_results

    results = joined((file, read_results(file)) for file in arguments.files)
    found = print_scores(results, ", ".join(arguments.files), arguments.matcher)
    if arguments.json:
        write_json(Path(arguments.json), found.leaderboard())
        print(f"Leaderboard: {arguments.json}")
    if arguments.page:
        from msvqa.page.mvbench import write_page

        write_page(found, Path(arguments.page))
        print(f"Page: {arguments.page}")
    return 0


def print_scores(results: "Results", name: str, matcher: str = "robust") -> "Tally":
    """Print a table of all tasks, and return what it was made of."""
    from msvqa.mvbench.tally import tally
    from msvqa.mvbench.tasks import BY_NAME

    found = tally(results, matcher)
    scores = found.scores
    table = table_of("task", "", "n", "accuracy", "95 % interval", "no answer")
    for task, counts in scores.tasks.items():
        table.add_row(task, BY_NAME[task].abbreviation, *_cells(counts))
    table.add_section()
    table.add_row(scores.name, "", *_cells(scores.total), style="bold")
    print_table(table, f"{name}, matcher {matcher}")
    low, high = found.interval
    print(
        f"{scores.name} {scores.micro:.2f} ({low:.1f} to {high:.1f} by clip), mean of tasks "
        f"{scores.macro:.2f}, coverage {scores.coverage:.1%}, guessing {found.guessing:.2f}"
    )
    if found.reasons:
        said = ", ".join(f"{reason} {n}" for reason, n in found.reasons.most_common())
        print(f"Without an answer, and wrong: {said}")
    settings = {**results.header.settings, "annotations": results.header.annotations}
    print("  ".join(f"{key}={value}" for key, value in settings.items()))
    return found


def _cells(counts: "Counts") -> list[str]:
    n = f"{counts.evaluated} of {counts.expected}"
    if not counts.counted:
        return [n, "", "", ""]
    low, high = counts.interval
    return [n, f"{counts.accuracy:.1f}", f"{low:.1f} to {high:.1f}", str(counts.invalid or "")]


def _compare(arguments: argparse.Namespace) -> int:
    from msvqa.mvbench.results import read_results
    from msvqa.mvbench.tally import compare, tally

    first, second = (
        tally(read_results(file), arguments.matcher) for file in (arguments.first, arguments.second)
    )
    _print_pair(compare(first, second), arguments.first, arguments.second)
    return 0


def _print_pair(pair: "Pair", first: str, second: str) -> None:
    table = table_of("task", "n", "A", "B", "B - A", "only A", "only B", "p (McNemar)")
    for name, difference in pair.tasks.items():
        table.add_row(name, *_difference_cells(difference))
    table.add_section()
    table.add_row("all", *_difference_cells(pair.total), style="bold")
    print_table(table, f"A {first}, B {second}")
    if pair.only_one:
        print(f"{pair.only_one} questions have an answer in one of them alone and are left out")


def _difference_cells(found: "Difference") -> list[str]:
    return [
        str(found.n),
        f"{found.first:.1f}",
        f"{found.second:.1f}",
        f"{found.second - found.first:+.1f}",
        str(found.only_first),
        str(found.only_second),
        f"{found.p_value:.3g}",
    ]


def _doctor(arguments: argparse.Namespace) -> int:
    from msvqa.mvbench.doctor import doctor

    lines = ProgressLines()
    diagnosis = doctor(
        arguments.root,
        media=arguments.media,
        timeout_s=arguments.timeout,
        progress=lambda done, total: lines.on_count("read", done, total),
    )
    lines.close()
    _print_diagnosis(diagnosis)
    return EXIT_PROBLEMS if diagnosis.problems else 0


def _make_mini(arguments: argparse.Namespace) -> int:
    from msvqa.mvbench.mini import make_mini

    root = make_mini(
        arguments.root, items=arguments.items, seed=arguments.seed, order=arguments.order
    )
    print(f"{root}: 20 tasks of {arguments.items} questions, options {arguments.order}")
    return 0


def _make_lessons(arguments: argparse.Namespace) -> int:
    from msvqa.mvbench.lessons import MINI, make_lessons

    root = make_lessons(
        arguments.root, items=arguments.items, tested=arguments.tested, seed=arguments.seed
    )
    print(
        f"{root}: videos with captions and questions, a small language model, and {root / MINI} "
        f"with {20 * arguments.tested} other questions"
    )
    return 0


def _print_diagnosis(diagnosis: "Diagnosis") -> None:
    table = table_of("task", "questions", "usable", "with media", "folder")
    table.columns[-1].justify = "left"
    for task in diagnosis.tasks:
        counts = map(str, (task.expected, task.usable, task.present))
        table.add_row(task.name, *counts, task.folder)
    print_table(table, f"{diagnosis.root}, annotations {diagnosis.annotations}")
    kinds: dict[str, list[str]] = {}
    for problem in diagnosis.problems:
        kinds.setdefault(problem.kind, []).append(problem.detail)
    for kind, details in kinds.items():
        print(f"{kind} ({len(details)}):")
        for detail in details[:NAMES_SHOWN]:
            print(f"  {detail}")
        if len(details) > NAMES_SHOWN:
            print(f"  … {len(details) - NAMES_SHOWN} more")
    size = "" if diagnosis.is_published_size else "; published are 20 tasks of 200 questions"
    read = "" if diagnosis.looked_into else " (media were looked for and not read: --media)"
    print(f"{diagnosis.coverage:.1%} of the questions can be asked{read}{size}")
