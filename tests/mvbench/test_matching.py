"""Letters from texts: what the rule must do beyond the recorded cases, and what others do wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msvqa.mvbench.matching import INVALID, MATCHERS, robust

OPTIONS = ("Sat down.", "Opened the door.", "Took the box.", "Closed the laptop.")


def test_an_empty_answer_is_wrong_by_our_rule_and_right_by_the_first_released_one():
    for completion in ("", ".", ")"):
        scored = f"({completion}"
        for gold in "ABCD":
            assert not MATCHERS["robust"].verdict(scored, OPTIONS, gold)
    assert all(MATCHERS["official_v1"].verdict("(", OPTIONS, gold) for gold in "ABCD")
    assert not any(MATCHERS["official_v2"].verdict("(", OPTIONS, gold) for gold in "ABCD")


@pytest.mark.parametrize(
    ("text", "letter", "reason"),
    [
        ("I reason about (A) and (B)\n</think>\n\n(C)", "C", "leading_label"),
        ("Best option:(B", "", "unparseable"),
        ("(D", "D", "leading_label"),
        ("> - **C**", "C", "leading_label"),
        ("(A) / (A)", "A", "leading_label"),
        ("(A), B", "", "ambiguous"),
        ("A & C.", "", "unparseable"),
        ("The answer is (Z), I mean option (B)", "B", "phrase"),
        ("(Z) or (Y)", "", "out_of_range"),
        ("Both (A) and (C) fit", "", "ambiguous"),
        ("\u2060\u200b", "", "empty"),
    ],
)
def test_what_a_text_means(text, letter, reason):
    found = robust(text, OPTIONS)
    assert (found.letter, found.reason) == (letter, reason)


def test_options_of_the_same_text_are_ambiguous():
    assert robust("A cat", ("A cat", "a cat.", "A dog")).reason == "ambiguous"


@given(st.text(max_size=60), st.lists(st.text(max_size=12), min_size=2, max_size=5))
def test_any_text_gives_a_valid_letter_or_a_reason(text, options):
    found = robust(text, options)
    valid = "ABCDE"[: len(options)]
    assert (found.letter in valid and found.letter) or found.reason in INVALID
    for matcher in MATCHERS.values():
        assert matcher.verdict(text, options, "A") in (True, False)


@given(st.integers(0, 3), st.sampled_from(["({}) {}", "{}.", "({}", "**{}**: {}", "Answer: {}"]))
def test_a_labelled_option_is_that_option(number, form):
    letter = "ABCD"[number]
    assert robust(form.format(letter, OPTIONS[number]), OPTIONS).letter == letter
