"""The count of a peer: its package is asked where somebody has installed it, and else refused."""

import os
from pathlib import Path

import pytest

from benchmarks.mvbench_peer import judged, peer_of

FOLDER = os.environ.get("MSVQA_PEER")


def row(text, gold="B"):
    return {"options": ["Up.", "Down.", "Left."], "gold": gold, "text": text}


def test_a_folder_without_the_package_is_refused_with_the_way_to_fill_it(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no lmms_eval/tasks/mvbench/utils\.py: see"):
        peer_of(tmp_path)


@pytest.mark.skipif(FOLDER is None, reason="MSVQA_PEER names no folder with lmms-eval")
def test_the_peer_counts_letters_and_not_words():
    peer = peer_of(Path(str(FOLDER)))
    assert [judged(peer, row(text))["score"] for text in ("B", "(B) Down.", "A", "")] == [
        1,
        1,
        0,
        0,
    ]
