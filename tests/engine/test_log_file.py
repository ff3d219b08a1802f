"""A log in a file: the work goes on without it."""

import logging

import pytest

from msvqa.engine.log_file import LogFile


@pytest.fixture
def log():
    found = logging.getLogger("msvqa.test")
    before = list(found.handlers)
    yield found
    found.handlers = before


@pytest.mark.parametrize("place", ["/dev/full", "/proc/none/log", "/dev/null/log"])
def test_a_log_that_cannot_be_written_is_said_once(log, place, caplog, capsys, tmp_path):
    handler = LogFile(place)
    log.addHandler(handler)
    for number in range(3):
        log.warning("message %d", number)
    handler.close()
    said = [text for text in caplog.messages if "cannot be written" in text]
    assert len(said) == 1
    assert place in said[0]
    assert capsys.readouterr().err == ""


def test_a_log_makes_its_folder_when_it_has_something_to_say(log, tmp_path):
    handler = LogFile(tmp_path / "logs" / "a.log")
    log.addHandler(handler)
    assert not (tmp_path / "logs").exists()
    log.warning("caf\u00e9 \udcff")
    handler.close()
    assert "caf\u00e9 \\udcff" in (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")
