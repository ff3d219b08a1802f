"""DualVGR: preprocessing of MSVD-QA, modules, losses, training steps, evaluation; 3D ResNeXt."""

from collections.abc import Callable, Iterator

from benchmarks.parity.recording import Comparison, Recording
from benchmarks.parity.videoqa import data, network, real_sizes, training

CHECKS: dict[str, Callable[[Recording], Iterator[Comparison]]] = {
    "question_encoder": network.question_encoder,
    "appearance_encoder": network.appearance_encoder,
    "query_attention": network.query_attention,
    "query_punish": network.query_punish,
    "gat": network.gat,
    "view_attention": network.view_attention,
    "mfb": network.mfb,
    "readout": network.readout,
    "answer_decoder": network.answer_decoder,
    "unit_layers1_graph1": network.units,
    "unit_layers2_graph1": network.units,
    "unit_layers2_graph2": network.units,
    "full_eval_units1": network.full_eval,
    "full_eval_units2": network.full_eval,
    "full_eval_units3": network.full_eval,
    "losses": training.loss_functions,
    "train_steps_units1_default_loss": training.train_steps,
    "train_steps_units2": training.train_steps,
    "full_dims_formula": real_sizes.full_dims,
    "resnext3d_formula": real_sizes.resnext3d,
    "frame_sampling": data.frame_sampling,
    "pixels": data.pixels,
    "questions_subset": data.questions_subset,
    "questions_full": data.questions_full,
    "evaluation": data.evaluation,
}
"""Recorded files and what compares them."""
