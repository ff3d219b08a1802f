"""Videos of a folder without annotations: what is taken, and what is left out and said."""

import os
from pathlib import Path

import pytest

from msvqa.checks.folder import COMPANIONS, LINKS, UNFINISHED_VIDEOS, UNNAMEABLE, find_videos
from msvqa.checks.videos import ANY_VIDEOS, recognise


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_other_systems_leave_is_left_out_and_counted(tmp_path):
    write(
        tmp_path,
        *(
            "a.MP4",
            "b.gif",
            "deep/\u8d64\u3044\u3000\u68d2.m2ts",
            "._a.MP4",
            "Thumbs.db",
            ".DS_Store",
        ),
        *("desktop.ini", "__MACOSX/a.mp4", "deep/@eaDir/a.mp4", "c.mp4.part", "d.webm.crdownload"),
    )
    found = find_videos(tmp_path)
    assert found.files == ["a.MP4", "b.gif", "deep/\u8d64\u3044\u3000\u68d2.m2ts"]
    assert dict(found.left_out) == {
        COMPANIONS: ["__MACOSX", "._a.MP4", "deep/@eaDir"],
        UNFINISHED_VIDEOS: ["c.mp4.part", "d.webm.crdownload"],
    }
    assert found.said() == (
        "; left out: 3 companion files of other systems (._a.MP4, …), "
        "2 unfinished downloads (c.mp4.part, …)"
    )
    assert find_videos(tmp_path / "deep" / "@eaDir").said() == ""


def test_links_are_followed_inside_and_elsewhere_on_demand_and_never_in_circles(tmp_path):
    write(tmp_path, "data/one/a.mp4", "disk/b.mp4")
    (tmp_path / "data/one/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/two").symlink_to(tmp_path / "data/one")
    (tmp_path / "data/disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "data")
    found = find_videos(tmp_path / "data")
    assert [Path(name).name for name in found.files] == ["a.mp4"]
    assert found.left_out[LINKS] == ["disk"]
    found = find_videos(tmp_path / "data", follow_links=True)
    assert [Path(name).name for name in found.files] == ["b.mp4", "a.mp4"]
    assert not found.left_out


def test_a_name_that_is_no_text_is_said_and_stops_nothing(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes no names but Unicode")
    write(tmp_path, "a.mp4")
    found = find_videos(tmp_path)
    assert (found.files, len(found.left_out[UNNAMEABLE])) == (["a.mp4"], 1)
    assert r"caf\xe9.mp4" in found.said()
    found.said().encode()


def test_settings_of_the_data_section_hold_without_a_recipe(tmp_path):
    assert not recognise(tmp_path).follow_links
    config = recognise(tmp_path, ["data.follow_links=true", "stages.0.epochs=2"])
    assert (config.name, config.follow_links) == (ANY_VIDEOS, True)
