"""YAML as people write it: what it means is kept, what it turns into another thing is refused."""

import pytest

from msvqa.errors import RecipeError
from msvqa.recipe import load, parse
from msvqa.space import load_space
from msvqa.strict_yaml import read_file, read_yaml, write_yaml
from tests.tiny import raw_recipe


def problems_of(text):
    with pytest.raises(RecipeError) as error:
        read_yaml(text, "text")
    return error.value.problems


def test_a_key_is_a_word_even_where_yaml_takes_it_for_true():
    content = read_yaml("a: {on: val, off: on}\nno: 1", "text")
    assert content == {"a": {"on": "val", "off": True}, "no": 1}
    assert read_yaml(write_yaml(content), "text") == content


def test_merge_keys_give_what_is_not_given():
    text = """
a: &a {videos: 2, size: 1}
b: &b {<<: *a, size: 3}
c: &c {<<: *b, videos: 4}
d: {<<: [*c, *a], more: 5}
e: [*b, <<, =]
"""
    assert read_yaml(text, "text") == {
        "a": {"videos": 2, "size": 1},
        "b": {"videos": 2, "size": 3},
        "c": {"videos": 4, "size": 3},
        "d": {"videos": 4, "size": 3, "more": 5},
        "e": [{"videos": 2, "size": 3}, "<<", "="],
    }


def test_stages_share_what_an_anchor_names(tmp_path):
    raw = raw_recipe(tmp_path)
    text = write_yaml({**raw, "stages": "STAGES"}).replace(
        "stages: STAGES",
        """stages:
- &first
  name: answer
  objective: {name: answering}
  steps: 2
  batch: &batch {videos: 2, questions_per_video: 1}
- <<: *first
  name: again
  batch: {<<: *batch, questions_per_video: 2}
""",
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    first, again = load(file).stages
    assert (first.batch.questions_per_video, again.batch.questions_per_video) == (1, 2)
    assert (again.name, again.steps, again.batch.videos) == ("again", 2, 2)


@pytest.mark.long
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:\n  b: 1\n  b: 2", "key given twice: b (line 3)"),
        ("a: &a {b: 1}\nc: {<<: *a, <<: *a}", "key given twice: << (line 2); merge several"),
        ("a:\n  b: 1\n\tc: 2", "line 3: begins with a tab; YAML is indented by spaces"),
        ("a: 1\n---\nb: 2", "line 2: a second document begins (---), a file holds one"),
        ("a: 1\nb: [", "line 2, column 5"),
        ("a: 1\nb: \x07", "line 2: the character '\\x07' is not allowed"),
        ("[" * 20_000, "nested too deeply"),
        ("a:\n  b: &x [1, *x]", "a.b.1: line 2: an alias stands for something that it is part of"),
        ("a: &x\n  <<: *x", "an alias stands for something that it is part of"),
        ("a: !!int x", "a: line 1: not valid YAML: 'x' is not what its tag !!int says"),
        ("a: !!bool x", "not what its tag !!bool says"),
        ("a: !!set {b}", "the tag 'tag:yaml.org,2002:set' is not read"),
        ("a: !!binary aGk=", "the tag 'tag:yaml.org,2002:binary' is not read"),
        ("a: !mine 3", "the tag '!mine' is not read"),
        ("[1]: 2", "a key must be a text"),
        ("7: 2", "key '7': line 1: YAML reads it as int, not as text; put it in quotes: '7'"),
        ("a: " + "9" * 5_000, "has more than 18 digits"),
        ('a: "\\ud800"', "a: line 1: holds a character that is none"),
        ('a: "x\\0"', "a: line 1: holds a character that is none"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(text, words):
    (problem,) = problems_of(text)
    assert words in problem
    assert "\n" not in problem


def test_what_yaml_turns_into_other_things_is_refused_all_at_once():
    text = "s: [1, {n: 010}]\nt: 12:30\nd: 2025-01-02\nx: 0x10\nb: 0b1\nf: 1:30.5\n"
    assert problems_of(text) == [
        "s.1.n: line 1: YAML reads 010 as an octal number; for text put it in quotes: '010'; "
        "for a number write 10",
        "t: line 2: YAML reads 12:30 as a number of base 60; for text put it in quotes: '12:30'",
        "d: line 3: YAML reads 2025-01-02 as a date; for text put it in quotes: '2025-01-02'",
        "x: line 4: YAML reads 0x10 as a hexadecimal number; for text put it in quotes: '0x10'",
        "b: line 5: YAML reads 0b1 as a binary number; for text put it in quotes: '0b1'",
        "f: line 6: YAML reads 1:30.5 as a number of base 60; for text put it in quotes: '1:30.5'",
    ]


def test_a_few_lines_cannot_stand_for_billions_of_values():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert problems_of("\n".join(lines)) == ["aliases repeat values to more than 100000 in all"]


def test_numbers_are_read_as_they_are_typed():
    text = "[1e-5, 1E-5, 1_000, 1_0.5e1, !!float 3, !!int 3, !!str 010, '12:30']"
    assert read_yaml(text, "text") == [1e-5, 1e-5, 1000, 105.0, 3.0, 3, "010", "12:30"]


TEXTS = ["1e3", "1_0e2", "010", "08", "no", "12:30", "2025-01-02", "=", "<<", "0x1", "1.0", "~"]


@pytest.mark.parametrize("text", [*TEXTS, "", "a: b", "- x", "\t", "é", "\U0001f4fd", "1e-5"])
def test_what_is_written_is_read_back_equal(text):
    content = {"z": [text, 1e-5, True, None], f"{text}a": {text: text}}
    assert read_yaml(write_yaml(content), "text") == content


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_files_of_other_systems_are_read_alike(tmp_path, encoding, end):
    file = tmp_path / "space.yaml"
    text = "name: lr\nsamples: 2\nfields:\n  seed: {choice: [1, 2]} # größer\n"
    file.write_bytes(text.replace("\n", end).encode(encoding))
    assert load_space(file).fields["seed"].choice == (1, 2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"# nothing\n", "the file is empty, or holds comments alone"),
        ("name: größer".encode("cp1252"), "the file: line 1: byte 0xf6 .* as UTF-8"),
        (b"<html>no such page</html>", "the file is a web page"),
    ],
)
def test_a_file_that_holds_no_yaml_is_one_sentence(tmp_path, content, words):
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    for read in (read_file, load, load_space):
        with pytest.raises(RecipeError, match=words) as error:
            read(file)
        assert len(error.value.problems) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("name=no", "name: .*YAML reads no, off and false as false: put text in quotes"),
        ("name=1e3", "name: .*put text in quotes that looks like a number"),
        ("name=007", "override 'name=007': YAML reads 007 as an octal number"),
        ("scaling.workers=on", "scaling.workers: .*YAML reads yes, on and true .*write a number"),
        ("seed=1e3", "seed: .*; write 1000"),
        ("seed=1,000", "seed: .*; write 1000, without quotes, commas and spaces"),
        ("stages.0.optimizer.lr='1e-5'", "lr: .*; write 1e-5, without quotes"),
        ("data.allow_missing=y", "data.allow_missing: .*; write true or false"),
    ],
)
def test_a_value_that_was_read_as_another_thing_says_what_to_write(tmp_path, override, words):
    with pytest.raises(RecipeError, match=words) as error:
        parse(raw_recipe(tmp_path), [override])
    assert len(error.value.problems) == 1


def test_booleans_may_be_written_as_people_do(tmp_path):
    recipe = parse(raw_recipe(tmp_path), ["data.allow_missing=yes", "name='1e3'"])
    assert recipe.data.allow_missing is True
    assert parse(read_yaml(recipe.to_yaml(), "recipe")).name == "1e3"
