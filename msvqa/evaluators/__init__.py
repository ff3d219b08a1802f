"""Evaluators: predictions to tables of named numbers. `EVALUATORS` lists them by name."""

EVALUATORS: dict[str, str] = {
    "question_answering": "msvqa.evaluators.question_answering:QuestionAnswering",
}
