"""The commands: their tables, files and exit codes."""

import json

import pytest

from msvqa import cli
from msvqa.mvbench.adapters.adapter import Source
from msvqa.mvbench.results import read_results
from msvqa.mvbench.run import Plan, run
from msvqa.mvbench.tasks import TASKS
from tests.mvbench.stub_adapters import Mean, Saying


@pytest.fixture(scope="module")
def results(drawn, tmp_path_factory):
    """Files of two results on the same questions."""
    folder = tmp_path_factory.mktemp("results")
    files = {}
    for name, adapter in (("mean", Mean), ("<b>silent</b>", Saying)):
        files[adapter.__name__] = folder / f"{adapter.__name__}.jsonl"
        plan = Plan(root=str(drawn), out=files[adapter.__name__], frames=3, part=(1, 2))
        run(adapter(Source(model=name)), plan)
    return files


def said(capsys, *words):
    code = cli.main(["mvbench", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.long
def test_score_prints_every_task_and_writes_a_leaderboard_and_a_page(results, tmp_path, capsys):
    board, page = tmp_path / "board.json", tmp_path / "page.html"
    words = ("score", results["Mean"], "--json", board, "--page", page)
    code, out, _ = said(capsys, *words)
    assert code == 0
    assert all(task.name in out for task in TASKS)
    assert "coverage 50.0%" in out
    assert "preset=official" in out
    content = json.loads(board.read_text())
    names = [task.abbreviation for task in TASKS]
    assert [key for key in content if key in names] == names
    rows = read_results(results["Mean"]).rows.values()
    assert content["partial"] == pytest.approx(100 * sum(r.letter == r.gold for r in rows) / 30)
    assert (content["n"], content["n_expected"]) == (30, 60)
    html = page.read_text()
    assert html.count("<article") == 12
    assert html.count("data:image/jpeg") == 12
    assert "no average of MVBench" in html


def test_a_page_escapes_what_models_say_and_needs_no_media(results, tmp_path, capsys):
    lines = results["Saying"].read_text().splitlines()
    header = json.loads(lines[0]) | {"media": str(tmp_path / "gone")}
    file, page = tmp_path / "moved.jsonl", tmp_path / "page.html"
    file.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    code, _, _ = said(capsys, "score", file, "--page", page)
    assert code == 0
    html = page.read_text()
    assert "<b>silent" not in html
    assert "&lt;b&gt;silent" in html
    assert "Frames are absent: no folder" in html
    assert "data:image" not in html


def test_every_matcher_counts_the_same_file(results, capsys):
    found = {}
    for name in ("robust", "official_v1", "official_v2", "lmms_eval", "vlmevalkit"):
        code, out, _ = said(capsys, "score", results["Saying"], "--matcher", name)
        assert code == 0
        found[name] = out
    # The silent model says its name in angle brackets, of which `b` is a letter.
    assert "Without an answer, and wrong: unparseable 30" in found["robust"]
    assert found["official_v2"] != found["robust"]
    code, _, err = said(capsys, "score", results["Saying"], "--matcher", "gpt")
    assert code == 2
    assert "no matcher 'gpt'; there are lmms_eval, official_v1" in err


def test_compare_prints_differences_with_p_values(results, capsys):
    code, out, _ = said(capsys, "compare", results["Mean"], results["Saying"])
    assert code == 0
    assert "p (McNemar)" in out
    assert out.count("\n") > 20


@pytest.mark.long
def test_doctor_names_what_is_absent_and_broken(mini, capsys):
    assert said(capsys, "doctor", mini)[0] == 0
    (mini / "video" / "pose" / "fine_grained_pose_001.mp4").unlink()
    (mini / "video" / "nav" / "egocentric_navigation_001.mp4").write_bytes(b"no video")
    rows = json.loads((mini / "json" / "action_sequence.json").read_text())
    rows[0]["end"] = 99.0
    (mini / "json" / "action_sequence.json").write_text(json.dumps(rows))
    code, out, _ = said(capsys, "doctor", mini)
    assert code == 1
    assert "missing_video (1):" in out
    assert "98.3% of the questions can be asked (media were looked for and not read" in out
    code, out, _ = said(capsys, "doctor", mini, "--media")
    assert code == 1
    assert "unreadable (1):" in out
    assert "odd_bound (1):" in out
    assert "which lasts 3.00 s" in out
    assert "96.7% of the questions" in out


@pytest.mark.long
def test_make_mini_is_a_root_that_doctor_likes(tmp_path, capsys):
    root = tmp_path / "mini"
    assert said(capsys, "make-mini", root, "--items", "1")[0] == 0
    code, out, _ = said(capsys, "doctor", root, "--media")
    assert (code, "100.0% of the questions can be asked" in out) == (0, True)
    code, _, err = said(capsys, "make-mini", root)
    assert (code, "is not empty" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "code"), [(["score", "f"], 2), (["doctor", "d"], 2), (["make-mini", "d"], 0)]
)
def test_an_answer_that_cannot_be_printed_is_an_error(words, code, capsys):
    arguments = cli._parse(["mvbench", *words])
    assert cli._unprinted(arguments, OSError("no space left"), 0) == code
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "nowhere.jsonl"], "no file nowhere.jsonl"),
        (["doctor", "nowhere"], "no folder"),
        (["run", "nowhere", "--out", "a", "--model", "nowhere"], "no folder of a model"),
        (["run", "x", "--out", "a", "--model", "m", "--preset", "offical"], "no preset"),
    ],
)
def test_a_mistake_is_one_sentence(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = said(capsys, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
