"""Words of the command line that start with a dash."""

import pytest

from msvqa import cli


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "-run", "-Zr7PH0_5_15.mp4", "-what=colour?"],
        ["predict", "-run", "-hello.mp4", "-x", "--json"],
        ["predict", "--json", "--", "--run", "--Z=r.mp4", "-h"],
        ["predict", "./-run", "./--Z.mp4", "- and?"],
    ],
)
def test_names_and_questions_may_start_with_a_dash(words):
    found = cli._parse(words)
    expected = [word for word in words[1:] if word not in ("--", "--json")]
    assert [found.path, found.video, found.question] == expected


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "-r.yaml"], "recipe"),
        (["extract", "-r.yaml", "seed=1"], "recipe"),
        (["evaluate", "-run", "--split", "-test"], "path"),
        (["report", "-run"], "path"),
        (["recipe", "show", "-r.yaml"], "recipe"),
        (["recipe", "diff", "-r.yaml", "-s.yaml"], "recipe"),
        (["tune", "-r.yaml", "-s.yaml"], "recipe"),
        (["doctor", "-r.yaml", "--data", "-films"], "recipe"),
        (["prepare", "-table", "--root", "-films"], "name"),
    ],
)
def test_every_verb_takes_a_name_with_a_dash(words, name):
    assert getattr(cli._parse(words), name).startswith("-")


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "run", "--Z_5_15.mp4", "who?"],
        ["evaluate", "--run", "--split", "test"],
        ["recipe", "show", "--r.yaml"],
        ["train", "--r.yaml"],
    ],
)
def test_what_looks_like_an_option_is_told_how_to_be_a_name(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli._parse(words)
    (name,) = (word for word in words if word.startswith("--") and word != "--split")
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert all(part in said for part in (f"{name}: no such option", "behind --", f"./{name}"))
