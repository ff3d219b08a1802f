"""Names of videos: which file they lead to, and what is said where they lead to none."""

import os
import unicodedata

import pytest

from msvqa.checks.folder import LINKS, find_videos
from msvqa.data.root import open_root
from msvqa.data.video_files import VIDEO_SUFFIXES, VideoFolders, endings_tried
from msvqa.errors import DataError


@pytest.fixture
def folders(tmp_path):
    return VideoFolders(open_root(tmp_path))


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("suffix", VIDEO_SUFFIXES)
def test_every_ending_is_found_in_any_case_with_and_without_it(tmp_path, folders, suffix):
    write(tmp_path, f"v/clip{suffix.upper()}")
    for name in ("clip", f"clip{suffix}", f"clip{suffix.upper()}"):
        assert folders.find(name, ("v",)).path == f"v/clip{suffix.upper()}"


def test_companions_are_no_candidates(tmp_path, folders):
    write(tmp_path, "v/clip.webm", "v/._clip.mp4", "v/clip.mp4.part", "v/clip.txt", "v/._x.mp4")
    found = folders.find("clip", ("v",))
    assert (found.path, found.others) == ("v/clip.webm", ())
    assert folders.find("._x", ("v",)).path == ""


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_both_normal_forms_lead_to_the_file_and_the_exact_one_first(tmp_path, written, asked):
    name, folder = "Zázna\u0301m", "vidéos"
    there = unicodedata.normalize(written, f"{folder}/{name}.mp4")
    write(tmp_path, there)
    wanted = unicodedata.normalize(asked, name)
    form = unicodedata.normalize(asked, folder)
    assert VideoFolders(open_root(tmp_path)).find(wanted, (form,)).path == there
    exact = unicodedata.normalize(asked, f"{folder}/{name}.mp4")
    write(tmp_path, exact)
    assert VideoFolders(open_root(tmp_path)).find(wanted, (form,)).path == exact


def test_a_name_as_it_is_goes_before_one_that_is_only_alike(tmp_path, folders):
    write(tmp_path, "one/clip.MP4", "two/clip.mp4")
    assert folders.find("clip.mp4", ("one", "two")).path == "two/clip.mp4"
    assert folders.find("clip.Mp4", ("one", "two")).path == "one/clip.MP4"


def test_an_absent_file_is_told_with_what_lies_in_its_place(tmp_path, folders):
    write(tmp_path, "v/Screen at 9.52\u202fAM.mp4")
    (tmp_path / "w").symlink_to(tmp_path / "not_mounted")
    spaces = folders.find("screen at 9.52 AM.mp4", ("v",))
    assert spaces.hint == r"there is 'v/Screen at 9.52\u202fAM.mp4'"
    assert folders.find("x", ("w",)).hint == f"w is a link to {tmp_path / 'not_mounted'}, " + (
        "where nothing is"
    )
    assert all(suffix in endings_tried([folders.find("x", ("v",))]) for suffix in VIDEO_SUFFIXES)
    assert endings_tried([spaces]) == ""


def test_the_file_decides_what_is_the_same(tmp_path):
    write(tmp_path, "a.mp4", "b.mp4", "A.mp4", "v/c.mp4")
    os.link(tmp_path / "a.mp4", tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to("a.mp4")
    (tmp_path / "w").symlink_to("v")
    root = open_root(tmp_path)
    same = [root.identify(name) for name in ("a.mp4", "hard.mp4", "soft.mp4")]
    assert len(set(same)) == 1
    assert root.identify("v/c.mp4") == root.identify("w/c.mp4")
    assert len({root.identify(name) for name in ("a.mp4", "b.mp4", "A.mp4", "v/c.mp4")}) == 4


def odd_links(folder):
    (folder / "circle.mp4").symlink_to(folder / "circle.mp4")
    (folder / "through_a_file").symlink_to(folder / "a.mp4" / "b")
    (folder / "long").symlink_to("x" * 300)


def test_an_odd_link_hides_no_other_file(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b").mkdir()
    odd_links(tmp_path)
    root = open_root(tmp_path)
    assert root.names("") == ["a.mp4"]
    assert root.folders("") == ["b"]
    assert find_videos(tmp_path).files == ["a.mp4"]


def test_annotations_behind_a_link_out_of_the_root_are_not_opened(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.txt").write_text("a secret")
    (tmp_path / "data" / "q.csv").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match=r"q\.csv leaves the data root by a link"):
        open_root(tmp_path / "data").source("q.csv")
    assert open_root(tmp_path / "data", follow_links=True).source("q.csv").path.read_text()


def test_videos_behind_links_out_of_the_folder_are_left_out_and_counted(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "far.mp4").touch()
    (tmp_path / "data" / "near.mp4").symlink_to(tmp_path / "far.mp4")
    found = find_videos(tmp_path / "data")
    assert (found.files, found.left_out[LINKS]) == ([], ["near.mp4"])
    assert find_videos(tmp_path / "data", follow_links=True).files == ["near.mp4"]
