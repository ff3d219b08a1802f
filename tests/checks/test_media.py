"""What the doctor says of media that are no videos, or parts of one."""

import json

import pytest

from msvqa.checks.report import Report
from msvqa.checks.videos import check_data
from msvqa.recipe import parse_data
from tests import barcode_video


@pytest.mark.long
def test_each_kind_of_bad_medium_is_named(tmp_path):
    barcode_video.write(tmp_path / "v.avi", 30)
    (tmp_path / "i.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    media = [{"image": "i.png"}, {"video": "empty"}, {"video": "v.avi", "start": 5, "end": 6}]
    rows = [medium | {"caption": "two words"} for medium in [{"video": "v.avi"}, *media]]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    report = Report()
    check_data(tmp_path, parse_data("caption_files", root=str(tmp_path)), 30.0, report)
    found = {problem.kind: problem for problem in report.problems}
    assert set(found) == {"bad_image", "empty_folder", "outside_video"}
    assert found["bad_image"].path == "i.png"
    assert found["empty_folder"].path == "empty"
    assert found["outside_video"].video_id == "v.avi[5-6]"
    check = next(check for check in report.checks if check.name == "videos")
    assert check.status == "fail"
    assert "1 ok, 1 bad_image, 1 empty_folder, 1 outside_video" in check.detail
