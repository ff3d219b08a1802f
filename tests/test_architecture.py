"""The rules of the code base that a program can check: imports, sizes, names, docstrings."""

import ast
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from msvqa.data import DATASETS
from msvqa.data.processors.processor import processor_of
from msvqa.evaluators import EVALUATORS
from msvqa.models import MODELS
from msvqa.models.encoders import ENCODERS
from msvqa.objectives import OBJECTIVES
from msvqa.recipe import load
from msvqa.sections import resolve
from msvqa.strict_yaml import read_yaml

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "msvqa").rglob("*.py"))
PROGRAMS = [
    file
    for folder in ("ray_jobs", "benchmarks", "examples")
    for file in (ROOT / folder).rglob("*.py")
]
SOURCES = [*PACKAGE, *PROGRAMS]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
RECIPES = sorted(
    file for file in (ROOT / "configs").rglob("*.yaml") if "search" not in file.parent.parts
)
NOT_OURS = re.compile(
    r"^(\.git|\.venv|\..*_cache|\.hypothesis|__pycache__|build|dist|runs|prepared|demo|.*egg-info)$"
)

VERBS = (
    "doctor", "prepare", "extract", "train", "tune", "evaluate", "merge", "predict", "similar",
    "embedder", "matcher", "export", "report", "serve", "talker",
)  # fmt: skip
LEAVES = {
    "errors", "failures", "content", "text_files", "files", "storage", "cache", "strict_yaml",
    "sections", "data_config", "stage_config", "job", "profiling", "compilation",
    "recipe", "run", "space", "data.batch", "collectives", "mvbench.tasks", "mvbench.prompts",
}  # fmt: skip
MAY_IMPORT = {
    "errors": set(),
    "failures": {"errors"},
    "content": set(),
    "files": set(),
    "text_files": {"errors", "content"},
    "strict_yaml": {"errors", "text_files"},
    "interruption": set(),
    "job": {"errors"},
    "profiling": {"errors", "files", "job"},
    "compilation": {"errors"},
    "machine": {"files"},
    "storage": {"errors", "machine"},
    "cache": {"errors", "machine", "storage"},
    "sections": {"errors", "strict_yaml"},
    "data_config": {"sections", "storage"},
    "stage_config": {"data_config", "sections"},
    "recipe": {"data_config", "errors", "sections", "stage_config", "storage", "strict_yaml"},
    "run": {"errors", "files", "recipe", "storage"},
    "space": {"errors", "recipe", "sections", "strict_yaml"},
    "collectives": set(),
    "mvbench.tasks": set(),
    "mvbench.prompts": set(),
    "ensemble": set(),
    "nearest": {"errors"},
    "losses": LEAVES,
    "metrics": LEAVES,
    "data": LEAVES,
    "models": LEAVES,
    "objectives": LEAVES | {"models", "losses", "data"},
    "evaluators": LEAVES | {"metrics", "data"},
    "engine": LEAVES
    | {"descriptors", "machine", "data", "models", "losses", "metrics", "objectives", "evaluators"},
    "mvbench": LEAVES | {"machine", "data", "metrics"},
    "checks": LEAVES | {"data", "models", "objectives", "evaluators", "engine"},
    "page": LEAVES | {"mvbench", "data", "models", "metrics", "objectives", "engine", "evaluators"},
    "descriptors": set(),
    "console": LEAVES | {"descriptors", "mvbench", "page", "similar", "talker"},
    "cli": LEAVES | {"interruption", "console", "machine", *VERBS},
    "__main__": {"cli"},
    "__init__": {"predict"},
}
for verb in VERBS:
    engine = {"engine", *MAY_IMPORT["engine"]}
    MAY_IMPORT[verb] = engine | {"checks", "mvbench", "page", "ensemble", "nearest", *VERBS}

NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def tree_of(file):
    return ast.parse(file.read_text(encoding="utf-8"))


def place(file, node):
    return f"{file.relative_to(ROOT)}:{node.lineno} {getattr(node, 'name', '')}".strip()


def functions_of(file):
    return [node for node in ast.walk(tree_of(file)) if isinstance(node, FUNCTIONS)]


def length_of(function):
    return function.end_lineno - function.lineno + 1


def group_of(module):
    """Return the part of the package that a module belongs to; `data.batch` is one of its own."""
    path = module.removeprefix("msvqa").removeprefix(".")
    return path if path in LEAVES else path.partition(".")[0]


def imports_of(file):
    """Yield the modules that a file imports when it runs, also inside functions."""
    for node in _running(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(file, node)}: relative import"
            yield node, node.module


def _running(node):
    """Walk a tree without the blocks that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _running(child)


def is_table(module):
    """Whether a module is the `__init__` of a part, which holds its table of names and no code."""
    return (ROOT / module.replace(".", "/") / "__init__.py").is_file()


@pytest.mark.long
def test_imports_point_one_way():
    wrong = []
    for file in PACKAGE:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        group = group_of(module)
        for node, name in imports_of(file):
            own = name.split(".")[0] == "msvqa" and not is_table(name)
            if own and group_of(name) not in {group, *MAY_IMPORT.get(group, ())}:
                wrong.append(f"{place(file, node)} imports {name}")
    assert not wrong


def test_parts_import_nothing_where_their_tables_are():
    tables = [
        file for file in PACKAGE if file.name == "__init__.py" and file.parent.name != "msvqa"
    ]
    assert not [place(f, node) for f in tables for node, name in imports_of(f) if "msvqa" in name]


@pytest.mark.long
def test_only_the_engine_imports_ray():
    allowed = {ROOT / "msvqa" / "serve.py"}
    wrong = [
        f"{place(file, node)} imports {name}"
        for file in PACKAGE
        for node, name in imports_of(file)
        if name.split(".")[0] == "ray" and "engine" not in file.parts and file not in allowed
    ]
    assert not wrong


@pytest.mark.long
@pytest.mark.parametrize("module", ["cli", "console.tables", "recipe", "run", "doctor", "errors"])
def test_light_modules_import_without_torch_and_ray(module):
    code = f"import sys, msvqa.{module}; print(*({{'torch', 'ray', 'av'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("file", [*SOURCES, *TESTS], ids=lambda f: str(f.relative_to(ROOT)))
def test_files_have_at_most_600_lines(file):
    count = len(file.read_text(encoding="utf-8").splitlines())
    assert count <= 600


@pytest.mark.long
def test_functions_have_at_most_80_lines():
    long = [
        f"{place(file, function)}: {length_of(function)}"
        for file in [*SOURCES, *TESTS]
        for function in functions_of(file)
        if length_of(function) > 80
    ]
    assert not long


@pytest.mark.long
def test_most_functions_are_short():
    lengths = sorted(length_of(f) for file in PACKAGE for f in functions_of(file))
    assert statistics.median(lengths) <= 12
    assert lengths[int(0.9 * len(lengths))] <= 40


@pytest.mark.long
def test_functions_have_at_most_five_parameters():
    wrong = [
        f"{place(file, function)}: {count}"
        for file in SOURCES
        for function in functions_of(file)
        if (count := _parameter_count(function)) > 5
    ]
    assert not wrong


def _parameter_count(function):
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in every)


@pytest.mark.long
def test_blocks_are_nested_at_most_three_deep():
    wrong = [
        f"{place(file, function)}: {depth}"
        for file in SOURCES
        for function in functions_of(file)
        if (depth := _depth(function)) > 3
    ]
    assert not wrong


def _depth(node, level=0):
    """Return how many blocks the deepest statement below a node stands in."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            continue
        # `elif` is an `if` alone in the else branch, and reads as one level.
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and node.orelse == [child]
        deepest = max(deepest, _depth(child, level + (isinstance(child, NESTING) and not is_elif)))
    return deepest


@pytest.mark.long
def test_no_block_of_more_than_twelve_lines_stands_twice():
    places = defaultdict(list)
    for file in SOURCES:
        lines = [
            (number, line.strip())
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
            if line.strip() and not line.strip().startswith(("#", "import ", "from "))
        ]
        for start in range(len(lines) - 12):
            block = tuple(text for _, text in lines[start : start + 13])
            places[block].append(f"{file.relative_to(ROOT)}:{lines[start][0]}")
    assert not [found for found in places.values() if len(found) > 1]


@pytest.mark.long
def test_print_is_only_in_the_command_line():
    command_line = {ROOT / "msvqa/cli.py", *(ROOT / "msvqa/console").iterdir()}
    wrong = [
        place(file, node)
        for file in PACKAGE
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
        and file not in command_line
    ]
    assert not wrong


def test_everything_public_has_a_docstring():
    missing = [
        place(file, node) if node is not tree else str(file.relative_to(ROOT))
        for file in SOURCES
        for tree in [tree_of(file)]
        for node in [tree, *_public(tree.body)]
        if not ast.get_docstring(node)
    ]
    assert not missing


def _public(body):
    for node in body:
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


@pytest.mark.long
def test_names_say_what_things_are():
    vague_modules = {"utils", "util", "misc", "helpers", "helper", "common", "base"}
    modules = [file for file in [*SOURCES, *TESTS] if file.stem.lower() in vague_modules]
    vague = re.compile(r"^Base[A-Z]|(Manager|Handler|Helper|Utils)$")
    classes = [
        place(file, node)
        for file in SOURCES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
    ]
    assert not [*modules, *classes]


@pytest.mark.long
def test_errors_are_not_swallowed_and_names_not_imported_by_star():
    wrong = []
    for file in [*SOURCES, *TESTS]:
        for node in ast.walk(tree_of(file)):
            star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
            if star or (isinstance(node, ast.ExceptHandler) and _swallows(node)):
                wrong.append(place(file, node))
    assert not wrong


def _swallows(handler):
    broad = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    return broad and all(isinstance(node, ast.Pass) for node in handler.body)


def test_no_file_names_a_place_on_one_machine():
    # Put together here, so that this file does not contain them.
    machine = re.compile(
        r"(^|[\s\"'`(=:])/(" + "|".join(["work", "farm", "home", "root", "Users"]) + ")/"
    )
    wrong = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in _text_files(ROOT)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert not wrong


def _text_files(folder):
    for entry in sorted(folder.iterdir()):
        if NOT_OURS.match(entry.name):
            continue
        if entry.is_dir():
            yield from _text_files(entry)
        elif entry.suffix in {".py", ".md", ".yaml", ".toml", ".sh", ".cfg", ".html", ""}:
            yield entry


def test_todo_comments_name_an_issue():
    todo = re.compile(r"#\s*(TODO|FIXME|XXX)(?!\(#\d+\))")
    assert not [
        f"{file.relative_to(ROOT)}:{number}"
        for file in SOURCES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if todo.search(line)
    ]


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("data set", DATASETS),
        ("model", MODELS),
        ("encoder", ENCODERS),
        ("objective", OBJECTIVES),
        ("evaluator", EVALUATORS),
    ],
)
def test_every_name_of_the_tables_leads_to_a_class(kind, table):
    assert all(isinstance(resolve(name, table, kind), type) for name in table)


@pytest.mark.long
@pytest.mark.parametrize("file", RECIPES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_shipped_recipe_loads_and_builds(file, tmp_path):
    import torch

    from msvqa.models.model import Sizes, build_model
    from tests.models.small_videochat2 import language_folder

    overrides = []
    if load(file).model.name == "videochat2":
        # The folder of a language model, which users have.
        overrides = [f"model.sources.language={language_folder(tmp_path)}"]
    for view in load(file, overrides).views():
        (stage,) = view.stages
        sizes = Sizes(
            vocabulary=100,
            answers=50,
            word_size=view.data.word_size,
            text=100,
            tags=30,
            labels=20,
            **processor_of(view).sizes(),
        )
        with torch.device("meta"):
            model = build_model(view, sizes, stage.absent)
            resolve(stage.objective.name, OBJECTIVES, "objective")(stage.objective, model)
        assert sum(parameter.numel() for parameter in model.parameters()) > 0


def test_yaml_in_the_documents_can_be_read():
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        (file.name, block)
        for file in documents
        for block in re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert blocks
    for name, block in blocks:
        assert read_yaml(block, name), name


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_shipped_recipe_says_how_it_is_used(file):
    head = "\n".join(
        line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    absent = [word for word in ("memory:", "time:", "score:") if word not in head.lower()]
    assert not absent
    assert f"msvqa train {file.relative_to(ROOT)}" in head
