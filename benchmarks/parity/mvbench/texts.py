"""Prompts to the byte, and the verdict of every matcher on recorded answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.parity.recording import EXACT, Comparison, Recording, compare_content
from msvqa.mvbench import matching
from msvqa.mvbench import prompts as ours

VERDICTS = {
    "official_v1": matching.official_v1,
    "official_v2": matching.official_v2,
    "lmms_eval": matching.lmms_eval,
    "vlmevalkit_exact": matching.vlmevalkit,
}


def prompts(recording: Recording) -> Iterator[Comparison]:
    """Every recorded prompt, byte for byte, and that nothing else is recorded."""
    samples = recording.content["samples"]
    found = {"system": ours.SYSTEM, "samples": [_prompts_of(sample) for sample in samples]}
    yield Comparison(recording.file, "samples: none", float(not samples), EXACT)
    yield compare_content(recording.file, "system", found["system"], recording.content["system"])
    for number, (mine, theirs) in enumerate(zip(found["samples"], samples, strict=True)):
        for name in mine.keys() | theirs.keys():
            pair = mine.get(name), theirs.get(name)
            yield compare_content(recording.file, f"samples/{number}/{name}", *pair)
    yield compare_content(recording.file, "names", sorted(found), sorted(recording.content))


def _prompts_of(sample: dict[str, Any]) -> dict[str, Any]:
    asked = (sample["question"], sample["candidates"])
    official = ours.official(*asked)
    return {
        "question": asked[0],
        "candidates": asked[1],
        "question_block": ours.question_block(*asked),
        "official_vicuna_prompt": ours.vicuna_text(official),
        "official_mistral_prompt_with_system_in_user_turn": ours.mistral_text(official),
        "lmms_eval_user_text": ours.lmms_eval(*asked).user,
        "vlmevalkit_messages": ours.messages(ours.vlmevalkit(*asked)),
    }


def answer_matching(recording: Recording) -> Iterator[Comparison]:
    """Letters and verdicts, of the arrays or of the JSON file that holds the same cases."""
    cases = recording.content if recording.content is not None else _cases(recording)
    verdicts = [_verdicts(case) for case in cases]
    yield Comparison(recording.file, "cases: none", float(not cases), EXACT)
    for name in sorted({name for case in cases for name in case}):
        if name in ("prediction", "options", "gold", "note"):
            continue
        found = [verdict.get(name) for verdict in verdicts]
        expected = [case.get(name) for case in cases]
        yield compare_content(recording.file, name, found, expected)


def _cases(recording: Recording) -> list[dict[str, Any]]:
    """Return the rows of the arrays as the JSON file has them."""
    columns = {name: recording[name].tolist() for name in recording.names()}
    counts = columns.pop("n_options")
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return [
        row | {"options": row["options"][:count]} for row, count in zip(rows, counts, strict=True)
    ]


def _verdicts(case: dict[str, Any]) -> dict[str, Any]:
    text, options, gold = case["prediction"], case["options"], case["gold"]
    match = matching.robust(text, options)
    return {
        "robust_letter": match.letter,
        "robust_reason": match.reason,
        "robust_correct": bool(np.equal(match.letter, gold)),
        **{name: verdict(text, options, gold) for name, verdict in VERDICTS.items()},
    }
