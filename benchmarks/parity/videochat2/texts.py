"""Conversations to the byte, their tokens, what of them is learned, and what a limit leaves."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerFast

from benchmarks.parity.recording import EXACT, Comparison, Recording, compare_content
from msvqa.data.conversations.conversation import Conversation, Targets, Turn
from msvqa.data.conversations.forms import Form, Mistral, Vicuna
from msvqa.data.conversations.frame_message import frame_message
from msvqa.data.conversations.tokens import Tokenization

FORMS: dict[str, Form] = {"vicuna": Vicuna(), "mistral": Mistral()}
MODES: tuple[Targets, ...] = ("answers_only", "reference_headers")
READINGS = ("instruction", "instruction+question")
UNLIMITED = 1 << 30
TOKENIZERS = ("word", "byte_bpe", "sp_bpe", "llm", "qformer")


@cache
def tokenizer_of(folder: Path, name: str, side: str = "right") -> Any:
    """Return one of the recorded tokenizers, which cuts on one side."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    if name == "qformer":
        special = {"bos_token": "[DEC]", "unk_token": "[UNK]", "pad_token": "[PAD]"}
    file = str(folder / f"tokenizer_{name}.json")
    return PreTrainedTokenizerFast(tokenizer_file=file, truncation_side=side, **special)


@cache
def recorded_conversations(folder: Path) -> Mapping[str, Conversation]:
    """Return the recorded rows by their names, as conversations."""
    content = json.loads((folder / "conversations.json").read_text(encoding="utf-8"))
    return {case["name"]: _conversation(case) for case in content["cases"]}


def _conversation(case: Mapping[str, Any]) -> Conversation:
    asked = [case["row"]["QA"][number] for number in case["order"]]
    turns = tuple(Turn(qa["q"], qa["a"], qa.get("i", "")) for qa in asked)
    message = frame_message([float(s) for s in case["seconds"]]) if case["kind"] == "video" else ""
    return Conversation(case["kind"], turns, case["system"], message)


def conversations(recording: Recording) -> Iterator[Comparison]:
    """Both texts, spans in both modes, what the Q-Former reads, and the message of the frames."""
    cases = recording.content["cases"]
    yield Comparison(recording.file, "cases: none", float(not cases), EXACT)
    for case in cases:
        name, mine = case["name"], _conversation(case)
        yield compare_content(recording.file, f"{name}/message", mine.message, case["message"])
        # The reference has no Vicuna form of rows without a medium.
        for form in (form for form in FORMS if case[form] is not None):
            found, expected = _written(mine, FORMS[form]), _expected(mine, case[form])
            yield compare_content(recording.file, f"{name}/{form}", found, expected)


def _expected(conversation: Conversation, recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what is recorded; without an instruction theirs reads nothing, ours the question."""
    if conversation.instruction:
        return recorded
    asked = conversation.turns[0].question
    return recorded | {"qformer": {"instruction": "", "instruction+question": asked}}


def _written(conversation: Conversation, form: Form) -> dict[str, Any]:
    written = form.write(conversation)
    readings = {what: conversation.reading(cast(Any, what)) for what in READINGS}
    spans = {mode: [list(span) for span in written.spans(mode)] for mode in MODES}
    return {"before": written.before, "after": written.after, "qformer": readings, "spans": spans}


def labels(recording: Recording) -> Iterator[Comparison]:
    """Tokens and masks of every row, in both forms, of three tokenizers."""
    folder = recording.path.parent
    rows = recorded_conversations(folder)
    for name, forms in recording.content.items():
        for form, cases in forms.items():
            for case, expected in cases.items():
                left_out = {"reference", "reference_error"}  # what the reference does otherwise
                theirs = {k: v for k, v in expected.items() if k not in left_out}
                found = _tokens(rows[case], tokenizer_of(folder, name), FORMS[form])
                yield compare_content(recording.file, f"{name}/{form}/{case}", found, theirs)


def _tokens(conversation: Conversation, tokenizer: Any, form: Form) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode in MODES:
        tokenization = Tokenization(form, tokenizer, mode, UNLIMITED)
        tokens = tokenization.tokenize(form.write(conversation))
        found |= {"before_ids": tokens.before, "after_ids": tokens.after}
        found[mode] = "".join("01"[target] for target in tokens.targets)
    return found


def truncation(recording: Recording) -> Iterator[Comparison]:
    """How many whole turns a limit leaves, and their texts, tokens and masks."""
    folder = recording.path.parent
    rows = recorded_conversations(folder)
    yield Comparison(recording.file, "rows: none", float(not recording.content), EXACT)
    for expected in recording.content:
        theirs = {k: v for k, v in expected.items() if k != "reference_cut"}
        mine, form = rows[expected["name"]], FORMS[expected["form"]]
        tokenizer = tokenizer_of(folder, expected["tokenizer"])
        fitted = Tokenization(form, tokenizer, limit=expected["limit"]).fit(mine)
        # Only whole turns are recorded: a single answer that is cut is none.
        whole = fitted.outcome in ("whole", "shortened")
        found = {k: expected[k] for k in ("name", "form", "tokenizer", "limit")}
        found |= {"turns": len(mine.turns), "turns_kept": fitted.turns if whole else 0}
        if whole:
            found |= _kept(mine.first(fitted.turns), tokenizer, form)
        name = "/".join(str(found[k]) for k in ("tokenizer", "form", "name", "limit"))
        yield compare_content(recording.file, name, found, theirs)


def _kept(conversation: Conversation, tokenizer: Any, form: Form) -> dict[str, Any]:
    written = form.write(conversation)
    tokens = _tokens(conversation, tokenizer, form)
    count = len(tokens["before_ids"]) + len(tokens["after_ids"])
    return tokens | {"before": written.before, "after": written.after, "text_tokens": count}


def frame_messages(recording: Recording) -> Iterator[Comparison]:
    """The message of recorded frames, whose seconds count from the start of the file."""
    for number, case in enumerate(recording.content):
        times = [index / case["fps"] for index in case["indices"]]
        # The reference has no space before the message of its demo; training has.
        found, expected = frame_message(times).strip(), case["message"].strip()
        if case.get("sample") == "rand":  # theirs rounds those as Python does: otherwise on ties
            ties = [time for time in times if (time * 20) % 2 == 1]
            if ties:
                found, expected = found.split(" at ")[0], expected.split(" at ")[0]
        yield compare_content(recording.file, f"{number}/{case['where']}", found, expected)
