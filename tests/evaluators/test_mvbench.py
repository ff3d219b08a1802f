"""The table and the examples of MVBench in a run's own evaluation."""

from msvqa.evaluators.mvbench import MVBench

METRICS = {
    "n": 40, "accuracy": 0.75, "coverage": 1.0, "guessing": 0.25, "blind_accuracy": 0.275,
    "tasks": {
        "Action Count": {"n": 20, "accuracy": 0.5, "interval": [0.299, 0.701], "blind": 0.3},
        "State Change": {"n": 20, "accuracy": 1.0, "interval": [0.8389, 1.0], "blind": 0.25},
    },
}  # fmt: skip


def test_the_table_is_in_percent_with_intervals_black_frames_and_guessing():
    sheet = MVBench.sheet(METRICS)
    assert len(sheet.columns) == len(sheet.rows[0]) == 6
    assert sheet.rows == [
        ("Action Count", "AC", 20, "50.0", "29.9 to 70.1", "30.0"),
        ("State Change", "SC", 20, "100.0", "83.9 to 100.0", "25.0"),
        ("all", "", 40, "75.0", "59.8 to 85.8", "27.5"),
        ("guessing", "", "", "25.0", "", ""),
    ]
    part = {key: value for key, value in METRICS.items() if key != "blind_accuracy"}
    assert MVBench.sheet(part | {"coverage": 0.5}).rows[2][::5] == ("partial", None)


def test_examples_are_the_surest_of_each_task():
    rows = [
        {"question": "which?", "options": ["a", "b"], "answer": 0, "chosen": chosen,
         "probability": probability, "task": task, "medium": f"{task} {chosen} {probability}"}
        for task in ("Action Count", "State Change")
        for chosen in (0, 1) for probability in (0.6, 0.9)
    ]  # fmt: skip
    cases = MVBench.cases(rows)
    assert {title: [case.media[0][0] for case in of] for title, of in cases.items()} == {
        "Surest and right": ["Action Count 0 0.9", "State Change 0 0.9"],
        "Surest and wrong": ["Action Count 1 0.9", "State Change 1 0.9"],
    }
    assert cases["Surest and wrong"][0].said == "which? b (90%); right: a"
