"""Rank correlations, and the ensemble of folds and models."""

from collections.abc import Iterator

import numpy as np

from benchmarks.parity.recording import DOUBLE, EXACT, Comparison, Recording
from msvqa import metrics
from msvqa.ensemble import concatenated, mean_of_folds, reduced, weighted_sum


def spearman(recording: Recording) -> Iterator[Comparison]:
    """Correlations and ranks with and without ties, and cosines of embeddings, one of them zero."""
    cases = [name.removesuffix("_pred") for name in recording.names() if name.endswith("_pred")]
    for case in cases:
        found, label = recording[f"{case}_pred"], recording[f"{case}_label"]
        yield recording.compare(f"{case}_rho", np.array(metrics.spearman(found, label)))
        yield recording.compare(f"{case}_pred_rank", metrics.average_ranks(found))
        yield recording.compare(f"{case}_label_rank", metrics.average_ranks(label))
    pairs = np.stack([recording["e2e_q"], recording["e2e_c"]], axis=1)
    cosines = metrics.cosines(recording["e2e_embeddings"], pairs)
    yield recording.compare("e2e_cosine", cosines)
    rho = metrics.spearman(cosines, recording["e2e_label"])
    yield recording.compare("e2e_rho", np.array(rho))
    recording.ignore("e2e_ids", "names of the rows")
    scaled = metrics.scaled_ranks(recording["ties_in_label_label"])
    yield recording.compare("rank_normalised_label", scaled)


def ensemble(recording: Recording) -> Iterator[Comparison]:
    """Means over folds, weighted sum, and the concatenation of unit vectors with its SVD."""
    count = len(recording["weights"])
    folds = [recording[f"model{number}_fold_embeddings"] for number in range(count)]
    yield recording.compare("folds", np.array([len(of_model) for of_model in folds]), EXACT)
    means = np.stack([mean_of_folds(of_model) for of_model in folds])
    yield recording.compare("fold_means", means)
    weights = recording["weights"]
    merged = weighted_sum(means, weights)
    yield recording.compare("merged", merged)
    pairs = np.stack([recording["pair_i"], recording["pair_j"]], axis=1)
    joined = concatenated(means, weights)
    fewer = reduced(joined, int(recording["svd_k"]))
    for name, vectors in {"sum": merged, "concat": joined, "concat_svd": fewer}.items():
        yield recording.compare(f"cosine_weighted_{name}", metrics.cosines(vectors, pairs), DOUBLE)
    yield recording.compare("gram_svd", fewer @ fewer.T)
