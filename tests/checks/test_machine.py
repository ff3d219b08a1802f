"""The doctor says what this machine lacks."""

from msvqa.checks import machine


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def refuse(*, dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    check = machine._writing()
    assert (check.status, str(tmp_path) in check.detail) == ("fail", True)


def test_a_container_limit_on_processors_is_said(monkeypatch):
    monkeypatch.setattr(machine, "_cgroup", lambda name: "50000 100000")
    check = machine._processors()
    assert check.status == "warn"
    assert "limited to the time of 0.5" in check.detail
