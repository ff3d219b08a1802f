"""Asking: each question once, whatever ends the asking; controls; rotations."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from msvqa.errors import DataError, RunError
from msvqa.mvbench.adapters.adapter import Source
from msvqa.mvbench.controls import controlled
from msvqa.mvbench.results import joined, read_results
from msvqa.mvbench.run import Plan, open_benchmark, run
from msvqa.mvbench.tally import compare, tally
from tests.mvbench.stub_adapters import (
    Echoing,
    Failing,
    Knowing,
    Mean,
    Mute,
    Saying,
    Slow,
    Weighing,
)

WRONG_LINES = (
    ("{", "line 3 is no line of a result"),
    ('{"key": "a"}', "line 3: missing"),
    ("INDEX", "line 3: texts, numbers and a right letter"),
    ("GOLD", "line 3: texts, numbers and a right letter"),
    ("TASK", "line 3: texts, numbers and a right letter"),
)
DAMAGE = {"INDEX": {"index": "0"}, "GOLD": {"gold": "Z"}, "TASK": {"task": "Cooking"}}


def asked(root, out, adapter=Mean, model="mean", **plan):
    plan = {"frames": 4, "size_px": 32, **plan}
    return run(adapter(Source(model=model)), Plan(root=str(root), out=Path(out), **plan))


@pytest.fixture(scope="module")
def whole(drawn, tmp_path_factory):
    """A result of all sixty questions."""
    out = tmp_path_factory.mktemp("whole") / "mean.jsonl"
    asked(drawn, out)
    return out


@pytest.mark.long
def test_who_echoes_is_right_who_is_silent_is_wrong(drawn, tmp_path):
    items = open_benchmark(str(drawn)).read().items
    Echoing.letters = ["ABCDE"[item.answer] for item in items]
    echo = tally(asked(drawn, tmp_path / "echo.jsonl", Echoing, "echo"))
    assert (echo.scores.micro, echo.scores.macro, echo.reasons) == (100, 100, {})
    share = np.mean([item.answer == 0 for item in items])
    constant = tally(asked(drawn, tmp_path / "a.jsonl", Saying, "A)"))
    assert constant.scores.micro == pytest.approx(100 * share)
    assert constant.scores.coverage == 1
    silent = asked(drawn, tmp_path / "silent.jsonl", Saying, "")
    assert tally(silent).scores.micro == 0
    assert tally(silent).reasons == {"empty": 60}
    assert tally(silent, "official_v1").scores.micro == 100, "the mistake that is known of it"
    assert tally(silent, "official_v2").scores.micro == 0
    dropped = tally(silent, "lmms_eval").scores
    assert (dropped.total.counted, dropped.total.evaluated) == (0, 60)


def test_rows_hold_what_is_needed_to_count_again(whole):
    results = read_results(whole)
    assert len(results.rows) == 60
    row = next(iter(results.rows.values()))
    assert row.options[ord(row.gold) - ord("A")] == "Orange."
    assert row.scored == f"({row.text}"
    assert row.verdicts["robust"] == (row.letter == row.gold)
    assert set(row.verdicts) == {"robust", "official_v1", "official_v2", "lmms_eval", "vlmevalkit"}
    for name in row.verdicts:
        by_rows = sum(row.verdicts[name] for row in results.rows.values())
        assert tally(results, name).scores.total.correct == by_rows


@pytest.mark.long
def test_a_run_that_is_ended_goes_on_and_gives_the_same_file(drawn, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(Mean, "name", "failing")
    out, other = tmp_path / "half.jsonl", tmp_path / "other.jsonl"
    Failing.left = 30
    with pytest.raises(KeyboardInterrupt):
        asked(drawn, out, Failing)
    assert len(read_results(out).rows) == 30
    Failing.left = 1000
    asked(drawn, out, Failing)
    assert Failing.left == 970, "nothing is asked twice"
    asked(drawn, other, Failing)
    assert out.read_bytes() == other.read_bytes()
    before = out.read_bytes()
    asked(drawn, out, Failing)
    assert out.read_bytes() == before


@pytest.mark.slow
def test_a_killed_process_leaves_what_goes_on_to_the_same_file(drawn, tmp_path):
    out, other = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    words = ["--adapter", "tests.mvbench.stub_adapters:Slow", "--model", "slow", "--frames", "4"]
    command = [sys.executable, "-m", "msvqa", "mvbench", "run", drawn, "--out", out, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while not out.is_file() or out.read_bytes().count(b"\n") < 30:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert 30 <= out.read_bytes().count(b"\n") < 61
    for file in (out, other):
        asked(drawn, file, Slow, "slow", size_px=448)
    assert out.read_bytes() == other.read_bytes()


def test_a_torn_last_line_is_told_and_done_again(drawn, whole, tmp_path, caplog):
    out = tmp_path / "torn.jsonl"
    out.write_bytes(whole.read_bytes()[:-40])
    with caplog.at_level(logging.WARNING, logger="msvqa"):
        assert len(read_results(out).rows) == 59
        asked(drawn, out)
    assert "is left out" in caplog.text
    assert "is done again" in caplog.text
    assert out.read_bytes() == whole.read_bytes()


def test_a_damaged_line_is_named(whole, tmp_path):
    lines = whole.read_text().splitlines()
    for line, said in WRONG_LINES:
        file = tmp_path / "bad.jsonl"
        if line in DAMAGE:
            line = json.dumps(json.loads(lines[2]) | DAMAGE[line])
        file.write_text("\n".join([*lines[:2], line, *lines[3:]]) + "\n")
        with pytest.raises(DataError, match=said):
            read_results(file)
    file.write_text('{"a": 1}\n')
    with pytest.raises(DataError, match="no result of `msvqa mvbench run`"):
        read_results(file)


def test_other_settings_and_other_media_are_refused(drawn, mini, whole, tmp_path):
    out = tmp_path / "mean.jsonl"
    out.write_bytes(whole.read_bytes())
    with pytest.raises(RunError, match="frames: 4 and 8"):
        asked(drawn, out, frames=8)
    with pytest.raises(RunError, match="media:"):
        asked(mini, out)
    assert out.read_bytes() == whole.read_bytes()


def test_two_processes_do_not_write_one_file(drawn, whole, tmp_path):
    from msvqa.mvbench.results import open_results

    out = tmp_path / "mean.jsonl"
    out.write_bytes(whole.read_bytes())
    header = read_results(out).header
    with open_results(out, header), pytest.raises(RunError, match="another process"):
        asked(drawn, out)


@pytest.mark.long
def test_parts_together_are_the_whole(drawn, whole, tmp_path):
    files = [tmp_path / f"{n}.jsonl" for n in range(1, 5)]
    for number, file in enumerate(files, start=1):
        asked(drawn, file, part=(number, 4))
    results = joined((str(file), read_results(file)) for file in files)
    lines = sorted(line for file in files for line in file.read_text().splitlines()[1:])
    assert lines == sorted(whole.read_text().splitlines()[1:])
    assert tally(results).leaderboard() == tally(read_results(whole)).leaderboard()


@pytest.mark.long
def test_absent_media_lower_the_coverage_and_broken_ones_are_wrong(mini, tmp_path):
    for number in range(3):
        (mini / "video" / "pose" / f"fine_grained_pose_{number:03d}.mp4").unlink()
    (mini / "video" / "nav" / "egocentric_navigation_001.mp4").write_bytes(b"no video")
    results = asked(mini, tmp_path / "a.jsonl", Saying, "A)")
    found = tally(results)
    assert found.scores.coverage == pytest.approx(57 / 60)
    assert found.scores.name == "partial"
    assert found.scores.tasks["Fine-grained Pose"].evaluated == 0
    assert found.scores.tasks["Egocentric Navigation"].evaluated == 3
    assert found.reasons == {"media_error": 1}
    (broken,) = [row for row in results.rows.values() if row.error]
    assert "egocentric_navigation_001.mp4" in broken.error
    fooled = tally(results, "vlmevalkit").scores
    assert fooled.total.correct == found.scores.total.correct + 1, "it counts failures as right"
    assert "partial" in found.leaderboard()
    assert "MVBench Avg" not in found.leaderboard()


@pytest.mark.long
def test_letters_by_logits_are_compared_without_words(drawn, whole, tmp_path):
    results = asked(drawn, tmp_path / "letters.jsonl", predict="letters")
    said = [row.letter for row in read_results(whole).rows.values()]
    assert [row.letter for row in results.rows.values()] == said
    row = next(iter(read_results(tmp_path / "letters.jsonl").rows.values()))
    assert row.text == ""
    assert list(row.logits) == ["A", "B", "C", "D"]
    with pytest.raises(DataError, match="gives no logits of letters"):
        asked(drawn, tmp_path / "other.jsonl", Saying, "A", predict="letters")


@pytest.mark.long
def test_options_by_likelihood_are_compared_in_three_ways(drawn, tmp_path):
    found = {}
    for way in ("sum", "mean", "char"):
        file = tmp_path / f"{way}.jsonl"
        results = asked(drawn, file, Weighing, "w", predict=f"options_{way}", part=(1, 60))
        ((row),) = results.rows.values()
        found[way] = row
    # Each character is a token of -1, so the shortest text is the likeliest, and all are alike by
    # token and by character; of equals the first is taken.
    sizes = [len(option) for option in row.options]
    assert found["sum"].logits == {
        letter: -(size + 3.0) for letter, size in zip("ABCD", sizes, strict=True)
    }
    assert found["sum"].letter == "ABCD"[int(np.argmin(sizes))]
    assert set(found["mean"].logits.values()) == set(found["char"].logits.values()) == {-1.0}
    assert (found["mean"].letter, found["char"].letter) == ("A", "A")


@pytest.mark.long
@pytest.mark.parametrize("control", ["none", "blind", "shuffled", "reversed"])
def test_controls_change_what_is_seen_and_nothing_else(drawn, tmp_path, control):
    adapter = Saying(Source(model="A"))
    plan = Plan(root=str(drawn), out=tmp_path / "a.jsonl", frames=6, control=control, part=(1, 60))
    run(adapter, plan)
    ((frames, prompt),) = adapter.seen
    assert prompt.seconds == 2.0, "from 1 s to the end at 3 s"
    plain = Saying(Source(model="A"))
    run(plain, Plan(root=str(drawn), out=tmp_path / "b.jsonl", frames=6, part=(1, 60)))
    ((seen, words),) = plain.seen
    assert prompt == words
    assert frames.shape == seen.shape == (6, 64, 64, 3)
    assert (frames == seen).all() == (control == "none")
    if control == "blind":
        assert not frames.any()
    if control == "reversed":
        assert (frames == seen[::-1]).all()
    if control == "shuffled":
        assert sorted(f.sum() for f in frames) == sorted(f.sum() for f in seen)


def test_shuffled_frames_are_in_no_order_of_time():
    frames = np.arange(3)[:, None, None, None]
    orders = [controlled(frames, "shuffled", str(n)).ravel().tolist() for n in range(40)]
    assert [0, 1, 2] not in orders
    assert len({tuple(order) for order in orders}) == 5
    assert orders[7] == controlled(frames, "shuffled", "7").ravel().tolist()


@pytest.mark.long
def test_circular_evaluation_asks_every_rotation_and_wants_all_right(drawn, tmp_path):
    items = open_benchmark(str(drawn)).read().items
    part = {"part": (1, 20), "circular": True}
    chosen = items[::20]
    Knowing.right = {item.question: [item.candidates[item.answer]] for item in chosen}
    knowing = asked(drawn, tmp_path / "k.jsonl", Knowing, "k", **part)
    assert len(knowing.rows) == sum(len(item.candidates) for item in chosen)
    assert tally(knowing).scores.micro == 100
    constant = tally(asked(drawn, tmp_path / "a.jsonl", Saying, "A)", **part))
    assert constant.scores.micro == 0
    assert constant.scores.total.evaluated == len(chosen)


def test_who_cannot_be_begun_for_is_told_at_the_end_of_the_turn(drawn, tmp_path):
    results = asked(drawn, tmp_path / "mute.jsonl", Mute, "mute", part=(1, 20))
    assert results.header.settings["answer_begun"] == "in the user's turn"
    assert {row.scored for row in results.rows.values()} == {""}


@pytest.mark.long
def test_results_are_compared_question_by_question(drawn, whole, tmp_path):
    silent = tally(asked(drawn, tmp_path / "silent.jsonl", Saying, "", part=(1, 2)))
    first = tally(read_results(whole))
    pair = compare(first, silent)
    assert (pair.total.n, pair.only_one, pair.total.second) == (30, 30, 0)
    assert pair.total.only_first == sum(first.verdicts[q].right for q in silent.verdicts)
    assert sum(task.n for task in pair.tasks.values()) == 30
    same = compare(first, first)
    assert (same.total.p_value, same.only_one) == (1, 0)
    other = json.loads(whole.read_text().splitlines()[0])
    other["annotations"] = "other"
    file = tmp_path / "other.jsonl"
    file.write_text("\n".join([json.dumps(other), *whole.read_text().splitlines()[1:]]) + "\n")
    with pytest.raises(DataError, match="different annotation files"):
        compare(first, tally(read_results(file)))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"preset": "offical"}, "no preset 'offical'; there are lmms_eval, official"),
        ({"control": "x"}, "no control"),
        ({"part": (5, 4)}, "part 5/4"),
    ],
)
def test_a_plan_is_checked_before_anything_is_read(tmp_path, field, said):
    with pytest.raises(DataError, match=said):
        Plan(root="nowhere", out=tmp_path / "a.jsonl", **field)
