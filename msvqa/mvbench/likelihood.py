"""Choosing an option by what a model gives for it, in place of what it says.

Legend: n questions, O options, T tokens of an option; what is absent is not a number.
"""

import numpy as np


def option_scores(
    token_logprobs: np.ndarray, n_options: np.ndarray, n_chars: np.ndarray
) -> dict[str, np.ndarray]:
    """Return log-likelihoods (n, O) of the options: `sum`, `mean` per token, `char` per character.

    Args:
        token_logprobs: (n, O, T) log-probabilities of an option's tokens, NaN beyond its end.
        n_options: (n,) how many options each question has; those beyond score minus infinity.
        n_chars: (n, O) characters of each option.
    """
    there = np.arange(token_logprobs.shape[1]) < n_options[:, None]  # (n, O)
    total = np.nansum(token_logprobs, axis=2)
    tokens = np.maximum((~np.isnan(token_logprobs)).sum(axis=2), 1)
    scores = {"sum": total, "mean": total / tokens, "char": total / np.maximum(n_chars, 1)}
    return {name: np.where(there, values, -np.inf) for name, values in scores.items()}


def pick(scores: np.ndarray) -> np.ndarray:
    """Return the best option (n,) of scores (n, O); of equals the first."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    best: np.ndarray = known.argmax(axis=1)
    return best


def letter_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, O) of the letters among each other; NaN where there is none."""
    shifted = logits - np.nanmax(logits, axis=1, keepdims=True)
    weights = np.exp(shifted)
    found: np.ndarray = weights / np.nansum(weights, axis=1, keepdims=True)
    return found
