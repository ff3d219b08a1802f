"""Kinds of examples: what there is to learn about media. `EXAMPLES` lists them by name."""

EXAMPLES: dict[str, str] = {
    "captions": "msvqa.data.examples.captions:Captions",
    "choices": "msvqa.data.examples.choices:Choices",
    "conversations": "msvqa.data.examples.conversations:Conversations",
    "labels": "msvqa.data.examples.labels:Labels",
    "pairs": "msvqa.data.examples.pairs:Pairs",
    "questions": "msvqa.data.examples.questions:Questions",
    "tags": "msvqa.data.examples.tags:Tags",
}
