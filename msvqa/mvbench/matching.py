"""From what a model said to a letter: one rule that can be trusted, and four that were used.

`robust` is the default. The others reproduce numbers that were published with them, with their
mistakes: `official_v1` counts an empty answer as right, `vlmevalkit` an answer that failed, and
`lmms_eval` leaves empty ones out of the denominator.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msvqa.mvbench.prompts import LETTERS

INVALID = ("unfinished_reasoning", "empty", "ambiguous", "out_of_range", "unparseable")
"""Why a text gives no letter."""

_ZERO_WIDTH = dict.fromkeys(map(ord, "\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_QUOTES = "\"'\u201c\u201d\u2018\u2019\u00ab\u00bb\u201e\u201a"
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL | re.IGNORECASE)
_THINKING_STARTS = re.compile(r"<think>", re.IGNORECASE)
_THINKING_ENDS = re.compile(r".*</think>", re.DOTALL | re.IGNORECASE)
_LINE_START = f" \t*_`>-#{_QUOTES}"
_LINE_ENDS = f" \t_{_QUOTES}"
_TEXT_ENDS = f" .,!?;:()[]{{}}*_`{_QUOTES}"

_LEADING = re.compile(r"[(\[]?\s*([A-Za-z])\s*(?=[)\].:,;]|$)")
_FOLLOWED_BY_BRACKETED = re.compile(r"\s*[)\]]?(?:\s|[,/&+]|and\b|or\b)*[(\[]\s*([A-Za-z])\s*[)\]]")
_FOLLOWED_BY_CAPITAL = re.compile(
    r"\s*[)\]]?\s*(?:[,/&+]|and\b|or\b)(?:\s|[,/&+]|and\b|or\b)*([A-Z])\s*(?=[)\].:,;]|$)"
)
_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b\s*(?:is\b|would\s+be\b|:|=)?\s*:?\s*"
    r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*(?=[)\].:,;]|$))",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
_ALONE = re.compile(r"(?<![^\W_])([A-Ea-e])(?![^\W_])")


@dataclass(frozen=True)
class Match:
    """The letter that a text gives, or none; and which part of the rule decided."""

    letter: str
    """Empty where there is none."""
    reason: str


def robust(text: str, options: Sequence[str]) -> Match:
    """Return the letter of the option that a text means, if it means one.

    A label beats content, since options can themselves be letters. Of several labels the one at the
    start counts, unless another is given beside it.

    Args:
        text: the scored text, with the bracket that the answer was begun with.
        options: their texts.
    """
    text = unicodedata.normalize("NFKC", text).translate(_ZERO_WIDTH)
    text = _THINKING.sub("", text)
    # Templates that begin the reasoning themselves leave only its end in the answer.
    text = _THINKING_ENDS.sub("", text)
    if _THINKING_STARTS.search(text):
        return Match("", "unfinished_reasoning")
    line = _first_line(text)
    if not any(character.isalnum() for character in line):
        return Match("", "empty")
    line = line.replace("*", "").replace("`", "").strip(_LINE_ENDS)
    valid = LETTERS[: len(options)]
    leading = _leading(line, valid)
    if leading.letter or leading.reason == "ambiguous":
        return leading
    found = _phrase(line, valid) or _bracketed(line, valid) or _content(line, options)
    return found or Match("", leading.reason or "unparseable")


def _first_line(text: str) -> str:
    lines = (line.strip().lstrip(_LINE_START) for line in text.splitlines())
    return next((line for line in lines if line), "")


def _leading(line: str, valid: str) -> Match:
    """Return the label that a line begins with; the reason is empty where it begins with none."""
    found = _LEADING.match(line)
    if not found:
        return Match("", "")
    letter, rest = found[1].upper(), line[found.end() :]
    if letter not in valid:
        return Match("", "out_of_range")
    for pattern in (_FOLLOWED_BY_BRACKETED, _FOLLOWED_BY_CAPITAL):
        other = pattern.match(rest)
        if other and other[1].upper() in valid and other[1].upper() != letter:
            return Match("", "ambiguous")
    return Match(letter, "leading_label")


def _phrase(line: str, valid: str) -> Match | None:
    letters = ((found[1] or found[2]).upper() for found in _PHRASE.finditer(line))
    letter = next((letter for letter in letters if letter in valid), "")
    return Match(letter, "phrase") if letter else None


def _bracketed(line: str, valid: str) -> Match | None:
    letters = {found[1].upper() for found in _BRACKETED.finditer(line)} & set(valid)
    if len(letters) > 1:
        return Match("", "ambiguous")
    return Match(letters.pop(), "bracketed") if letters else None


def _content(line: str, options: Sequence[str]) -> Match | None:
    said, texts = _plain(line), [_plain(option) for option in options]
    equal = [number for number, text in enumerate(texts) if text and text == said]
    if len(equal) == 1:
        return Match(LETTERS[equal[0]], "content_exact")
    within = [number for number, text in enumerate(texts) if text and _has_words(said, text)]
    kept = [n for n in within if not any(_is_inside(texts[n], texts[other]) for other in within)]
    if len(kept) == 1:
        return Match(LETTERS[kept[0]], "content_contained")
    return Match("", "ambiguous") if kept else None


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).translate(_ZERO_WIDTH)
    return " ".join(text.casefold().split()).strip(_TEXT_ENDS)


def _has_words(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _is_inside(text: str, other: str) -> bool:
    return text != other and text in other


def official_v1(text: str, options: Sequence[str], gold: str) -> bool:
    """Return whether the first released rule counts a text as right.

    It compares what precedes the first space and takes either being a part of the other for
    equality, so that an empty answer, a dot and a lone bracket are always right.
    """
    said, right = _before_space(text).replace(".", ""), _before_space(_labelled(options, gold))
    return said in right or right in said


def official_v2(text: str, options: Sequence[str], gold: str) -> bool:
    """Return whether a later released rule counts a text as right.

    It takes a letter within a word for an answer: "Based on" is right for A, B, D and E.
    """
    said, right = (
        re.sub(r"[().]", "", _before_space(words)) for words in (text, _labelled(options, gold))
    )
    return any(letter in said for letter in "abcde") and (said == right or right in said)


def lmms_eval(text: str, options: Sequence[str], gold: str) -> bool:
    """Return whether lmms-eval counts a text as right: its first letter that stands alone.

    The article of "a dog" is such a letter.
    """
    found = _ALONE.search(text)
    if found:
        return found[1].upper() == gold
    return text.strip().casefold() == _labelled(options, gold).strip().casefold()


def vlmevalkit(text: str, options: Sequence[str], gold: str) -> bool:
    """Return whether VLMEvalKit counts a text as right where no other model is asked to judge."""
    return official_v1(text.strip(), options, gold)


def _before_space(text: str) -> str:
    return text.lower().split(" ", 1)[0]


def _labelled(options: Sequence[str], gold: str) -> str:
    return f"({gold}) {options[LETTERS.index(gold)]}"


def robust_verdict(text: str, options: Sequence[str], gold: str) -> bool:
    """Return whether the letter of a text is the right one."""
    return robust(text, options).letter == gold


@dataclass(frozen=True)
class Matcher:
    """A rule with what its program does to answers that are no answers."""

    verdict: Callable[[str, Sequence[str], str], bool]
    """From a text, the options and the right letter."""
    counts_empty: bool = True
    """Whether an empty text stays in the denominator."""
    failed_is_right: bool = False
    """Whether a question that could not be asked is counted as right."""
    first_line_only: bool = False
    """Whether its program looks at the first line of an answer alone."""

    def text(self, scored: str) -> str:
        """Return the part of a text that its program looks at."""
        return scored.split("\n", 1)[0] if self.first_line_only else scored


MATCHERS: dict[str, Matcher] = {
    "robust": Matcher(robust_verdict),
    "official_v1": Matcher(official_v1, first_line_only=True),
    "official_v2": Matcher(official_v2, first_line_only=True),
    "lmms_eval": Matcher(lmms_eval, counts_empty=False),
    "vlmevalkit": Matcher(vlmevalkit, failed_is_right=True),
}
"""Rules by name; the first is the default."""
