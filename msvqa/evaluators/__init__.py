"""Evaluators: ask a model and count its answers. `EVALUATORS` lists them by name."""

EVALUATORS: dict[str, str] = {
    "classification": "msvqa.evaluators.classification:Classification",
    "losses": "msvqa.evaluators.losses:Losses",
    "mvbench": "msvqa.evaluators.mvbench:MVBench",
    "question_answering": "msvqa.evaluators.question_answering:QuestionAnswering",
    "reconstruction": "msvqa.evaluators.reconstruction:Reconstruction",
    "retrieval": "msvqa.evaluators.retrieval:Retrieval",
    "similarity": "msvqa.evaluators.similarity:Similarity",
}
