"""Placement of workers: what is asked for against what there is."""

import pytest

from msvqa.engine.cluster import Resources, place
from msvqa.errors import ClusterError
from msvqa.recipe import ScalingConfig


@pytest.mark.parametrize(
    ("workers", "gpus", "expected", "backend"),
    [(2, 0, 0.0, "gloo"), (2, 2, 1.0, "nccl"), (2, 8, 1.0, "nccl"), (2, 1, 0.5, "gloo")],
)
def test_gpus_are_shared_evenly_by_default(workers, gpus, expected, backend):
    placement = place(ScalingConfig(workers=workers), Resources(16, gpus))
    assert placement.gpus_per_worker == expected
    assert placement.backend == backend


def test_no_gpu_is_taken_where_none_is_wanted():
    placement = place(ScalingConfig(workers=2, gpus_per_worker=0), Resources(16, 8))
    assert placement.gpus_per_worker == 0
    assert placement.backend == "gloo"


def test_too_much_is_refused_with_what_was_asked_and_what_there_is():
    with pytest.raises(
        ClusterError, match=r"4 workers x \(1 CPUs, 0 GPUs\) = 4 CPUs .* are 2 CPUs"
    ):
        place(ScalingConfig(workers=4), Resources(2, 0))
    with pytest.raises(ClusterError, match=r"4 GPUs, but there are 64 CPUs and 1 GPUs"):
        place(ScalingConfig(workers=2, gpus_per_worker=2), Resources(64, 1))


def test_decoding_while_training_needs_a_cpu_of_its_own():
    with pytest.raises(ClusterError, match=r"\+ 1 CPUs for decoding"):
        place(ScalingConfig(workers=2), Resources(2, 0), data_cpus=1)
    place(ScalingConfig(workers=2, cpus_per_worker=0.5), Resources(2, 0), data_cpus=1)
