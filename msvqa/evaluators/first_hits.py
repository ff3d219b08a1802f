"""First hits: in which kinds of words the medium that is found first is another one.

Annotations may name what a caption says by kinds of words, such as {"color": "red", "motion":
"left"}. A wrong first hit differs in a kind where no caption of it says the word that was asked
for.

Legend: n captions, w words.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msvqa.evaluators.evaluator import Sheet

Kinds = Mapping[str, str] | None
"""Words of a caption by kind; None where the annotations name none."""

LARGEST = 12
"""Words of a table at most; those that are asked for less often are one."""
OTHERS, UNSAID = "other words", "not said"
NONE_OF_THEM = "none of them"


def count_first_hits(
    kinds: Sequence[Kinds], medium: np.ndarray, found: np.ndarray
) -> dict[str, Any]:
    """Return what differs between what is asked for and what is found first, ready for JSON.

    Args:
        kinds: of each of the n captions.
        medium: (n,) what each is a caption of.
        found: (n,) the medium that is found first for each.

    Returns:
        `asked` and `wrong`, how many captions name kinds, and how many of these find another
        medium; `differing`, the wrong ones by all kinds in which they differ, "color and shape";
        `kinds`, for each kind `asked`, `wrong` and a table `found` of the `words`: a row for each
        word that is asked for, and in it how often each is found.
    """
    said = _said_of_media(kinds, medium)
    differing: Counter[str] = Counter()
    pairs: defaultdict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    asked = [row for row, of_caption in enumerate(kinds) if of_caption]
    for row in asked:
        wanted, there = kinds[row] or {}, said[int(found[row])]
        hits = {kind: _hit(word, there.get(kind, [])) for kind, word in wanted.items()}
        pairs_of_row = {kind: (word, hits[kind]) for kind, word in wanted.items()}
        for kind, pair in pairs_of_row.items():
            pairs[kind][pair] += 1
        if found[row] != medium[row]:
            names = [kind for kind, (word, hit) in pairs_of_row.items() if word != hit]
            differing[" and ".join(names) or NONE_OF_THEM] += 1
    return {
        "asked": len(asked),
        "wrong": differing.total(),
        "differing": dict(differing.most_common()),
        "kinds": {kind: _table(counts) for kind, counts in pairs.items()},
    }


def sheets_of(first_hits: Mapping[str, Any]) -> dict[str, Sheet]:
    """Return the counts as tables, under their titles; none where nothing names kinds."""
    if not first_hits.get("asked"):
        return {}
    wrong, found = first_hits["wrong"], {}
    if wrong:
        rows = [(what, count, count / wrong) for what, count in first_hits["differing"].items()]
        title = f"What differs in {wrong} of {first_hits['asked']} first hits that are wrong"
        found[title] = Sheet(("differs in", "captions", "part"), rows)
    for kind, counts in first_hits["kinds"].items():
        words = counts["words"]
        title = f"{kind}: asked for and found first ({counts['wrong']} of {counts['asked']} wrong)"
        cells = [
            (word, *(number or None for number in row))
            for word, row in zip(words, counts["found"], strict=True)
            if any(row)
        ]
        found[title] = Sheet(("asked for", *words), cells)
    return found


def _said_of_media(kinds: Sequence[Kinds], medium: np.ndarray) -> dict[int, dict[str, list[str]]]:
    """Return the words that the captions of each medium say, by kind."""
    said: defaultdict[int, dict[str, list[str]]] = defaultdict(dict)
    for of_caption, row in zip(kinds, medium.tolist(), strict=True):
        for kind, word in (of_caption or {}).items():
            said[row].setdefault(kind, []).append(word)
    return said


def _hit(word: str, there: Sequence[str]) -> str:
    """Return the word that is found where one was asked for."""
    return word if word in there else next(iter(there), UNSAID)


def _table(counts: Counter[tuple[str, str]]) -> dict[str, Any]:
    often: Counter[str] = Counter()
    for (word, hit), number in counts.items():
        often[word] += number
        often[hit] += 0  # after all that are asked for
    named = [word for word, _ in often.most_common() if word != UNSAID]
    words = sorted(named) if len(named) <= LARGEST else [*sorted(named[: LARGEST - 1]), OTHERS]
    if UNSAID in often:
        words.append(UNSAID)
    place = {word: number for number, word in enumerate(words)}
    table = np.zeros((len(words), len(words)), dtype=np.int64)
    for pair, number in counts.items():
        row, column = (place.get(word, place.get(OTHERS, 0)) for word in pair)
        table[row, column] += number
    wrong = sum(number for (word, hit), number in counts.items() if word != hit)
    return {"asked": counts.total(), "wrong": wrong, "words": words, "found": table.tolist()}
