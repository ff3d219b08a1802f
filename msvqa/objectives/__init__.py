"""Objectives: a model with the losses of one stage. `OBJECTIVES` lists them by name."""

OBJECTIVES: dict[str, str] = {
    "alignment": "msvqa.objectives.alignment:Alignment",
    "reconstruction": "msvqa.objectives.reconstruction:Reconstruction",
    "answering": "msvqa.objectives.answering:Answering",
    "query_alignment": "msvqa.objectives.query_alignment:QueryAlignment",
    "generation": "msvqa.objectives.generation:Generation",
}
