"""What tests of decoding share."""

import pytest

from msvqa.data import nvdec


@pytest.fixture(autouse=True)
def nvdec_on_the_cpu(monkeypatch):
    """Let the back end nvdec run in this process without a GPU."""
    monkeypatch.setattr(nvdec, "DEVICE", "cpu")
