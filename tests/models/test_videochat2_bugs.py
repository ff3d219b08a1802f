"""What users of the released program hit: each of these cannot happen here, or is said at once.

Others of the list have their tests where they belong: 2, 4, 5, 10 and 15 in test_videochat2.py, 10
in tests/data/datasets/test_instructions.py.
"""

import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
import torch

import msvqa
from msvqa import cli
from msvqa.checks.machine import _torch
from msvqa.data.encoding import write_video
from msvqa.data.processors.frames import Frames
from msvqa.data.texts import as_tensor, read_texts
from msvqa.errors import RecipeError, VideoError, WeightsError
from msvqa.evaluators.mvbench import MVBench
from msvqa.objectives import query_alignment
from msvqa.objectives.generation import Generation
from msvqa.objectives.query_alignment import QueryAlignment
from msvqa.prepare import prepare
from msvqa.recipe import EvaluationConfig, load, parse, parse_data
from tests.models.small_videochat2 import (
    FRAMES,
    SIZE_PX,
    TURNS,
    asked,
    built,
    language_folder,
    seen,
)

RECIPE = Path(__file__).parents[2] / "configs" / "videochat2" / "quickstart.yaml"


@pytest.fixture(scope="module")
def objective(tmp_path_factory):
    folder = language_folder(tmp_path_factory.mktemp("language"))
    model = built("instruct", folder)
    return Generation(Generation.Config(preset="lmms_eval"), model).eval()


def test_bug_1_a_recipe_is_plain_data():
    recipe = load(RECIPE)
    assert parse(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_bug_3_an_objective_that_cannot_be_asked_is_refused_before_it_is_asked():
    class Silent:
        def answers(self, what):
            return False

    with pytest.raises(RecipeError, match="letters"):
        MVBench(EvaluationConfig()).ask(Silent(), None)


def test_bug_5_a_folder_without_weights_is_refused_where_recipes_are_checked(tmp_path):
    folder = language_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with torch.device("meta"), pytest.raises(WeightsError, match=r"no file \*\.safetensors"):
        built("connect", folder)


def test_bug_6_tokenizers_are_those_of_the_library(objective):
    ids = objective.chat.reader("a red cup").input_ids
    assert objective.chat.reader.decode(ids) == "[CLS] a red cup [SEP]"


def test_bug_7_no_name_is_used_that_numpy_removed():
    removed = re.compile(r"\bnp\.(float|int|bool|object|str|long|complex|unicode)\b(?!_)")
    files = [*Path(msvqa.__file__).parent.rglob("*.py")]
    assert len(files) > 100
    assert not [file for file in files if removed.search(file.read_text())]


def test_bug_8_the_program_is_a_command_of_an_installed_package():
    (command,) = (e for e in entry_points(group="console_scripts") if e.name == "msvqa")
    assert command.load() is cli.run


def test_bug_9_the_doctor_names_the_versions_that_must_fit():
    found = _torch()
    assert found.status != "fail"
    assert torch.__version__ in found.detail


@pytest.mark.long
def test_bug_11_an_unreadable_video_is_left_out_with_its_text(tmp_path):
    pictures = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    for number in (0, 2):
        write_video(tmp_path / f"{number}.mp4", iter(pictures + number), 4)
    (tmp_path / "1.mp4").write_bytes(b"no video")
    rows = [{"video": f"{n}.mp4", "caption": f"number {n}"} for n in range(3)]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    config = parse_data("caption_files", [], root=str(tmp_path), prepared=str(tmp_path / "p"))
    split = prepare(config).split("train")
    broken = split.media.medium(1)
    with pytest.raises(VideoError):
        list(Frames(Frames.Config(frames=2, size_px=16)).arrays([broken]))
    left = split.without([broken.id])
    told = left.examples.table["captions"].to_pylist()
    media = [left.media.medium(row) for row in left.examples.medium]
    pairs = [(Path(medium.path).name, *said) for medium, said in zip(media, told, strict=True)]
    assert pairs == [("0.mp4", "number 0"), ("2.mp4", "number 2")]
    assert left.expected == 3


def test_bug_12_pairs_are_told_apart_by_global_ids():
    batch = seen(3) | {"text_id": torch.tensor([7, 7, 8])}
    batch["video"] = torch.tensor([1000, 2000, 1000])
    expected = [[True, True, True], [True, True, False], [True, False, True]]
    assert query_alignment._matches(batch).tolist() == expected


def test_bug_13_training_and_asking_see_the_same_pixels(objective):
    frames = asked()["frames"]
    scaled = objective.chat.scale(frames, like=objective.chat.video.patch_embed.proj.weight)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    by_hand = ((frames.float() - mean) / std).movedim(-1, 1)
    assert torch.allclose(scaled, by_hand, atol=1e-5)
    objective.train()
    trained = objective.chat.see({"frames": frames})
    assert torch.equal(objective.eval().chat.see({"frames": frames}), trained)


def test_bug_14_a_key_that_nothing_reads_is_refused():
    with pytest.raises(RecipeError, match=r"model\.video\.ckpt_num_frame: unknown key"):
        load(RECIPE, ["model.video.ckpt_num_frame=4"])


def test_an_image_is_one_frame(objective):
    batch = seen() | {"is_image": torch.ones(4, dtype=torch.bool)}
    alone = {"frames": batch["frames"][:, :1]}
    assert torch.equal(objective.chat.see(batch), objective.chat.see(alone))
    assert objective.chat.see(batch).shape[1] == (SIZE_PX // 8) ** 2
    assert objective.chat.see(seen()).shape[1] == FRAMES * (SIZE_PX // 8) ** 2


def test_letters_are_those_of_the_likeliest_next_token(objective):
    asked_of = [["what is it ?", "a cup", "red", "blue"], ["is it red ?", "red", "blue"]]
    batch = {name: value[:2] for name, value in seen().items() if value.ndim}
    batch |= {
        "asked_utf8": as_tensor([json.dumps(row) for row in asked_of]),
        "options": torch.tensor([3, 2]),
    }
    with torch.no_grad():
        found = objective.letters(batch)
    assert found["chosen"][1] < 2
    assert found["probability"].min() > 1 / 3 - 1e-6
    alone = {name: value[1:] for name, value in batch.items()}
    alone["video_index"] = torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(objective.letters(alone)["chosen"], found["chosen"][1:])


def test_rows_without_a_target_are_counted_and_teach_nothing(objective):
    turns = [["what " * 600, "red", ""]]
    batch = asked(2)
    batch["conversation_utf8"] = as_tensor([json.dumps(["video", turns])] * 2)
    found = objective.loss(batch)
    assert float(found["loss"]) == 0
    assert float(found["dropped"]) == 1


def test_a_row_without_a_medium_is_in_a_batch_with_others_what_it_is_alone(objective):
    text = json.dumps(["text", TURNS[1]])
    alone = {"conversation_utf8": as_tensor([text]), "weight": torch.ones(1)}
    alone["normalizer"] = torch.tensor(1.0)
    together = asked(2)
    together["conversation_utf8"] = as_tensor([json.dumps(["video", TURNS[0]]), text])
    together |= {"video": torch.tensor([0, -1]), "weight": torch.tensor([0.0, 1.0])}
    together["frames"][1] = 0
    with torch.no_grad():
        expected, found = objective.loss(alone)["loss"], objective.loss(together)["loss"]
    assert torch.allclose(found, expected, atol=1e-5)
    together["video"] = torch.tensor([0, 1])
    with torch.no_grad():
        assert not torch.allclose(objective.loss(together)["loss"], expected, atol=1e-3)


def test_texts_longer_than_the_q_former_has_places_are_refused_before_a_step(tmp_path):
    model = built("align", language_folder(tmp_path))
    with pytest.raises(RecipeError, match=r"max_words: 17 .* model\.qformer\.max_words = 16"):
        QueryAlignment(QueryAlignment.Config(max_words=17), model)


def test_texts_of_a_batch_come_back_as_they_were():
    texts = ["", "äöü ###", "漢字\n\x00"]
    assert read_texts(as_tensor(texts)) == texts
    assert as_tensor(texts).numpy().dtype == np.uint8
