"""Lines of progress: what they say, and how often in a log."""

from msvqa.console.progress import ProgressLines


def test_training_lines_name_stage_step_loss_speed_and_time(capsys):
    lines = ProgressLines(log_every_s=0)
    lines.on_stage("answer", "starts")
    lines.on_row(
        {
            "stage": "answer", "kind": "train", "step": 3, "epoch": 0, "time_s": 1.5, "steps": 30,
            "loss": 2.5, "lr": 1e-4, "questions_per_s": 71.4, "waiting": 0.031, "eta_s": 63.2,
        }
    )  # fmt: skip
    lines.on_row(
        {"stage": "answer", "kind": "validation", "step": 3, "epoch": 0, "accuracy": 0.125}
    )
    lines.on_extract(3, 4, 1)
    assert capsys.readouterr().out.splitlines() == [
        "stage answer starts",
        "answer  step 3/30  loss 2.5  71 examples/s  waiting 3%  0:01:03 left",
        "answer  step 3  validation: accuracy 0.125",
        "extract: 3 of 4 videos, 1 rejected",
    ]


def test_what_is_no_number_is_said(capsys):
    row = {"stage": "reconstruct", "kind": "validation", "step": 3, "epoch": 0, "mse": None}
    ProgressLines(log_every_s=0).on_row(row)
    assert capsys.readouterr().out == "reconstruct  step 3  validation: mse is not finite\n"


def test_of_many_numbers_the_first_are_shown(capsys):
    row = {"stage": "align", "kind": "validation", "step": 3, "epoch": 0}
    numbers = {f"recall_at_{k}": 0.5 for k in range(9)}
    ProgressLines(log_every_s=0).on_row(row | numbers)
    shown = "recall_at_0 0.5, recall_at_1 0.5, recall_at_2 0.5, recall_at_3 0.5, 5 more"
    assert capsys.readouterr().out == f"align  step 3  validation: {shown}\n"


def test_a_log_gets_a_line_now_and_then(capsys):
    lines = ProgressLines(log_every_s=1000)
    for done in range(1, 101):
        lines.on_extract(done, 100, 0)
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["extract: 1 of 100 videos", "extract: 100 of 100 videos"]
