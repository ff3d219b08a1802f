"""Lessons for a small video chat model: drawn videos, what is said of them, and a language model.

    videos/NUMBER.mp4, videos/NUMBER/   other ones than those of the benchmark beside them
    train.json  val.json                captions of some, as the data set caption_files reads them
    instructions.json                   questions with answers, as the data set instructions does
    instructions_val.json
    language/                           a small language model of random weights, its tokenizer
    qformer/                            the tokenizer of the Q-Former
    mvbench/                            a small MVBench (`mini.py`), whose options keep their order
    mvbench_shuffled/                   the same questions with their options in drawn orders

A caption says what is drawn, and answers no question in its words. A letter is asked for in the
words of `lmms_eval`, and the same in open words: so the answers are learned too, which a small
model could not tell from letters.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msvqa.data.datasets.mvbench import MANIFEST
from msvqa.errors import DataError, PackageError
from msvqa.files import folder_written_aside
from msvqa.mvbench.drawing import write_media
from msvqa.mvbench.mini import drawn_medium, make_mini
from msvqa.mvbench.prompts import LETTERS, lmms_eval
from msvqa.mvbench.scenes import SIZE_PX, Drawn, described, draw
from msvqa.mvbench.tasks import TASKS

MARKER = "lessons.json"
MINI, SHUFFLED = "mvbench", "mvbench_shuffled"
LEAST = 10
"""Videos of a task."""
VALIDATED, CAPTIONED = 0.1, 0.4
"""Parts of the videos that are for validation, and of the others that have a caption: the first two
stages are short. Which these are is drawn: the answers of a task take turns."""
OTHER_SEED = 1_000_003
"""Added to the seed of the lessons: the benchmark has other videos."""
WIDTH = 96
"""Of the language model; states of one so narrow must start larger than the library has them."""
SPECIAL = ("<s>", "</s>", "<unk>", "[CLS]", "[SEP]")
SPOKEN = (
    "### Human: ### Assistant: <Video> </Video> <Image> </Image> [INST] [/INST]",
    "Describe this video in a few words. What happens in the video? Say briefly what it shows.",
    "(A) (B) (C) (D) (E) A. B. C. D. E.",
)
"""What is in conversations besides questions and answers."""


def make_lessons(root: str | Path, *, items: int = 150, tested: int = 12, seed: int = 0) -> Path:
    """Write lessons into a folder, with equal files for equal arguments.

    Args:
        root: folder that is absent or empty; it appears only when it is complete.
        items: videos of each of the twenty tasks to learn from; fewer where there are no more that
            look otherwise than all others, those of the benchmark too.
        tested: questions of each task in the benchmark.
        seed: chooses everything that is drawn, and the weights of the language model.

    Raises:
        DataError: `root` holds something else, or there is no such number.
        PackageError: a package that makes language models is absent.
    """
    root = Path(root)
    if items < LEAST or tested < 1:
        raise DataError(f"at least {LEAST} videos of a task and 1 question, not {items}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} is not empty; name another folder")
    with folder_written_aside(root, MARKER) as aside:
        for name, order in ((MINI, "fixed"), (SHUFFLED, "shuffled")):
            make_mini(aside / name, items=tested, seed=seed + OTHER_SEED, order=order)
        _write(aside, items, seed)
    return root


def _write(root: Path, items: int, seed: int) -> None:
    media: list[dict[str, Any]] = []
    known = {_look(medium) for medium in _drawn_for(root / MINI)}
    chance = np.random.default_rng([seed, 8])
    rows: dict[str, list[dict[str, Any]]] = {"": [], "_val": []}
    captions: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for task in TASKS:
        for drawn in draw(task, seed, items):
            name = f"videos/{len(media):05d}{'' if task.is_frames else '.mp4'}"
            medium = drawn_medium(task, drawn, name)
            if (look := _look(medium)) in known:
                continue  # some scenes have few looks: none is learned and tested, or seen twice
            known.add(look)
            media.append(medium)
            is_validated, is_captioned = chance.random(2) < (VALIDATED, CAPTIONED)
            about = _about(drawn, name)
            # Rows of their own: behind an answer the same in other words is no riddle.
            of_turns = [about | {"QA": [turn]} for turn in _turns(drawn)]
            rows["_val" if is_validated else ""] += of_turns
            if is_validated or is_captioned:
                said = {"caption": described(drawn, medium["fps"])}
                captions["val" if is_validated else "train"].append(about | said)
    (root / "videos").mkdir()
    write_media(root, {"frame_size": [SIZE_PX, SIZE_PX], "media": media})
    for ending, found in rows.items():
        _write_json(root / f"instructions{ending}.json", found)
    for split, named in captions.items():
        _write_json(root / f"{split}.json", named)
    asked = [row["QA"] for found in rows.values() for row in found]
    spoken = [text for turns in asked for turn in turns for text in turn.values()]
    spoken += [row["caption"] for found in captions.values() for row in found]
    _write_models(root, words_of([*SPOKEN, *spoken]), seed)
    _write_json(root / MARKER, {"items": items, "seed": seed, "videos": len(media)})


def _drawn_for(root: Path) -> list[dict[str, Any]]:
    """Return the media of a benchmark as they were drawn."""
    manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    media: list[dict[str, Any]] = manifest["media"]
    return media


def _look(medium: dict[str, Any]) -> str:
    """Return what is the same for media that look alike."""
    return json.dumps({key: value for key, value in medium.items() if key != "path"})


def _about(drawn: Drawn, name: str) -> dict[str, Any]:
    if drawn.span is None:
        return {"video": name}
    return {"video": name, "start": drawn.span[0], "end": drawn.span[1]}


def _turns(drawn: Drawn) -> list[dict[str, str]]:
    letter = LETTERS[list(drawn.options).index(drawn.answer)]
    asked = lmms_eval(drawn.question, drawn.options).user.strip()
    return [
        {"i": "", "q": asked, "a": f"{letter}."},
        {"i": "", "q": drawn.question, "a": drawn.answer},
    ]


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the words and marks of texts, each once, as the tokenizer cuts them."""
    cutter = _cutter()
    found = {word for text in texts for word, _ in cutter.pre_tokenize_str(text)}
    return sorted(found)


def _cutter() -> Any:
    try:
        from tokenizers import pre_tokenizers
    except ImportError as error:
        raise PackageError(f"{error}: pip install tokenizers") from None
    return pre_tokenizers.Whitespace()


def _write_models(root: Path, words: Sequence[str], seed: int) -> None:
    """Write a language model that knows these words, and both tokenizers."""
    try:
        import torch
        import transformers
        from tokenizers import Tokenizer, models, processors

    except ImportError as error:
        raise PackageError(f"{error}: pip install 'transformers>=5' torch tokenizers") from None
    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    ids = {word: number for number, word in enumerate((*SPECIAL, *words))}
    marks = [(mark, ids[mark]) for mark in ("[CLS]", "[SEP]")]
    for folder in ("language", "qformer"):
        cut = Tokenizer(models.WordLevel(ids, "<unk>"))
        cut.pre_tokenizer = _cutter()
        if folder == "qformer":
            cut.post_processor = processors.TemplateProcessing(
                single="[CLS] $A [SEP]", special_tokens=marks
            )
        library.PreTrainedTokenizerFast(
            tokenizer_object=cut, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
            pad_token="</s>",
        ).save_pretrained(root / folder)  # fmt: skip
    config = library.LlamaConfig(
        vocab_size=len(ids), hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=2 * WIDTH, max_position_embeddings=512, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, initializer_range=WIDTH**-0.5,
    )  # fmt: skip
    state = np.random.default_rng([seed, 7]).integers(2**31)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(state))
        library.LlamaForCausalLM(config).save_pretrained(root / "language")
