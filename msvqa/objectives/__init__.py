"""Objectives: a model with the losses of one stage. `OBJECTIVES` lists them by name."""

OBJECTIVES: dict[str, str] = {
    "alignment": "msvqa.objectives.alignment:Alignment",
    "answer_ranking": "msvqa.objectives.answer_ranking:AnswerRanking",
    "classification": "msvqa.objectives.classification:Classification",
    "distillation": "msvqa.objectives.distillation:Distillation",
    "reconstruction": "msvqa.objectives.reconstruction:Reconstruction",
    "answering": "msvqa.objectives.answering:Answering",
    "similarity": "msvqa.objectives.similarity:Similarity",
    "tagging": "msvqa.objectives.tagging:Tagging",
    "query_alignment": "msvqa.objectives.query_alignment:QueryAlignment",
    "generation": "msvqa.objectives.generation:Generation",
}
