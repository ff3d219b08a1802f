"""The back ends that read videos, as tests take them: nvdec on the CPU, where torchcodec is."""

import pytest

from msvqa.data import nvdec_needs, readers

NO_TORCHCODEC = nvdec_needs.lacking("cpu")
NO_GPU = nvdec_needs.lacking("cuda")
needs_torchcodec = pytest.mark.skipif(bool(NO_TORCHCODEC), reason=NO_TORCHCODEC)
needs_gpu = pytest.mark.skipif(bool(NO_GPU), reason=NO_GPU)
DECODERS = [
    pytest.param(name, marks=needs_torchcodec) if name == "nvdec" else name
    for name in readers.DECODERS
]
