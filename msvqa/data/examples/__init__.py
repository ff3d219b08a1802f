"""Kinds of examples: what there is to learn about media. `EXAMPLES` lists them by name."""

EXAMPLES: dict[str, str] = {
    "questions": "msvqa.data.examples.questions:Questions",
}
