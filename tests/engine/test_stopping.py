"""Asking a run to stop: signals of the driver, a checkpoint of the loop, and the way back."""

import os
import signal
import time

import pytest

from msvqa.engine import stopping
from msvqa.engine.stopping import StopRequest
from msvqa.errors import StoppedError
from msvqa.run import Run
from tests.engine.test_loop import assert_equal, final_weights, train
from tests.tiny import make_recipe


def test_the_first_signal_asks_and_the_second_ends(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(tmp_path).on_signals() as came:
        assert not StopRequest(tmp_path).is_asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert StopRequest(tmp_path).is_asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert came == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before
    assert not StopRequest(tmp_path).is_asked(), "the next start is not asked"


def test_a_request_that_cannot_be_written_is_sent_again(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "ASK_AGAIN_S", 0.1)
    with StopRequest(tmp_path).on_signals():
        stop = tmp_path / stopping.STOP_FILE
        stop.unlink()
        stop.mkdir()
        os.kill(os.getpid(), signal.SIGTERM)
        assert not StopRequest(tmp_path).is_asked()
        stop.rmdir()
        deadline = time.monotonic() + 10
        while not StopRequest(tmp_path).is_asked() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert StopRequest(tmp_path).is_asked()


@pytest.mark.long
def test_a_stopped_stage_continues_where_it_was_stopped(tiny, tmp_path):
    options = (f"runs={tmp_path}", "stages.0.epochs=2")
    whole, cut = (make_recipe(tiny, *options, f"name={name}") for name in ("whole", "cut"))
    train(whole, 0)
    run = Run.create(cut)
    request = StopRequest(run.path)
    request.ask("a test")
    with pytest.raises(StoppedError, match=r"written a checkpoint after step 1: the same command"):
        train(cut, 0)
    assert [path.name for path, _ in run.checkpoints("reconstruct")] == ["step-00000001"]
    (run.path / "stop").unlink()
    train(cut, 0)
    assert_equal(final_weights(whole, "reconstruct"), final_weights(cut, "reconstruct"))
