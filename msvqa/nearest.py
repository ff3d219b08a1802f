"""The nearest of many embeddings by their cosine: exact, whatever their number.

Legend: N vectors, E numbers each, k nearest.
"""

from collections.abc import Iterator

import numpy as np

from msvqa.errors import PackageError

BLOCK = 65_536
"""Vectors that are multiplied at once: 128 MiB in double precision at E = 256."""
PLAIN = 1_000_000
"""So many vectors are compared by matrix products; more by faiss, which is exact as well."""


def nearest(
    vectors: np.ndarray, query: np.ndarray, top: int, *, plain: int = PLAIN
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (k,) of vectors (N, E) that are nearest to one (E,), and their cosines (k,).

    k is the smaller of `top` and N. The cosine with a zero vector is 0. Of equal cosines the first
    row comes first, except in faiss, which promises no order among them.

    Raises:
        PackageError: there are more than `plain` vectors, and faiss is not installed.
    """
    top = min(top, len(vectors))
    if not top:
        return np.zeros(0, np.int64), np.zeros(0)
    if len(vectors) > plain:
        return _by_faiss(vectors, query, top)
    unit = units(query[None])[0]
    found = np.concatenate([block @ unit for block in _blocks(vectors)])
    rows = np.argsort(-found, kind="stable")[:top]
    return rows, found[rows]


def units(vectors: np.ndarray) -> np.ndarray:
    """Return float64 (N, E) of length 1; zero vectors stay zero."""
    precise = vectors.astype(np.float64)
    norms = np.linalg.norm(precise, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(precise, norms, out=np.zeros_like(precise), where=norms != 0)
    return unit


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), BLOCK):
        yield units(vectors[start : start + BLOCK])


def _by_faiss(vectors: np.ndarray, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        import faiss
    except ImportError as error:
        raise PackageError(
            f"{len(vectors):,} embeddings are searched by faiss, which cannot be imported "
            f"({error}): install it with pip install faiss-cpu"
        ) from error
    index = faiss.IndexFlatIP(vectors.shape[1])
    for block in _blocks(vectors):
        index.add(block.astype(np.float32))
    cosines, rows = index.search(units(query[None]).astype(np.float32), top)
    return rows[0], cosines[0].astype(np.float64)
