"""A video-language model in a folder, as the library `transformers` reads it.

Words and frames go through the processor of the folder; nothing is fetched, and no code in the
folder is run.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msvqa.errors import DataError, PackageError
from msvqa.mvbench.adapters.adapter import Adapter, Source
from msvqa.mvbench.prompts import Prompt, letter_tokens

# T frames, n letters, L tokens, l of them of the text, V tokens known.


class Transformers(Adapter):
    """A model of the folder `model`: Qwen-VL, LLaVA-OneVision, InternVL and their like."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        folder = Path(source.model)
        if not (folder / "config.json").is_file():
            raise DataError(f"{folder}: no folder of a model, which has a file config.json")
        try:
            import transformers
        except ImportError as error:
            raise PackageError(f"{error}: pip install 'transformers>=5'") from None
        library: Any = transformers
        library.utils.logging.disable_progress_bar()
        known: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor: Any = library.AutoProcessor.from_pretrained(folder, **known)
            model: Any = library.AutoModelForImageTextToText.from_pretrained(
                folder, dtype="auto", use_safetensors=True, **known
            )
        except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
            raise DataError(f"{folder} cannot be read as a video-language model: {error}") from None
        if not getattr(self._processor, "chat_template", None):
            raise DataError(f"{folder}: its processor has no chat template to ask by")
        self._model = model.to(source.device).eval()

    @property
    def name(self) -> str:
        """The name of the folder."""
        return Path(self.source.model).resolve().name

    @torch.inference_mode()
    def generate(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return what the model says, greedily."""
        inputs = self._inputs(frames, prompt)
        length = inputs["input_ids"].shape[1]
        tokens = self._model.generate(
            **inputs, do_sample=False, num_beams=1, max_new_tokens=self.source.max_new_tokens
        )  # (1, L + new)
        text: str = self._tokenizer.decode(tokens[0, length:], skip_special_tokens=True)
        return text

    @torch.inference_mode()
    def letter_logits(
        self, frames: np.ndarray, prompt: Prompt, letters: Sequence[str]
    ) -> np.ndarray:
        """Return the logits of the next token, added up over the spellings of each letter."""
        logits = self._model(**self._inputs(frames, prompt)).logits[0, -1].double()  # (V,)
        found = [torch.logsumexp(logits[self._tokens(letter)], dim=0) for letter in letters]
        return torch.stack(found).cpu().numpy()  # (n,)

    @torch.inference_mode()
    def text_logprobs(
        self, frames: np.ndarray, prompt: Prompt, texts: Sequence[str]
    ) -> list[np.ndarray]:
        """Return the log-probabilities of each text's tokens, read in one pass each."""
        before = self._inputs(frames, prompt)["input_ids"][0]
        return [self._logprobs(frames, prompt, text, before) for text in texts]

    def _logprobs(
        self, frames: np.ndarray, prompt: Prompt, text: str, before: torch.Tensor
    ) -> np.ndarray:
        inputs = self._inputs(frames, replace(prompt, prefill=f"{prompt.prefill}{text}"))
        tokens = inputs["input_ids"][0]  # (L,)
        # The end of the prompt and the beginning of the text may be one token: it is the text's.
        shared = min(len(before), len(tokens))
        first = int((before[:shared] == tokens[:shared]).cumprod(dim=0).sum())
        logits = self._model(**inputs).logits[0, first - 1 : -1].double()  # (l, V)
        found = torch.log_softmax(logits, dim=-1).gather(1, tokens[first:, None])[:, 0]
        return found.cpu().numpy()  # (l,)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._processor.tokenizer

    def _tokens(self, letter: str) -> list[int]:
        if not (found := letter_tokens(self._tokenizer, letter)):
            raise DataError(f"{self.name}: no token is the letter {letter}; --predict generate")
        return found

    def _inputs(self, frames: np.ndarray, prompt: Prompt) -> Any:
        user = [{"type": "video"}, {"type": "text", "text": prompt.user}]
        system = [{"type": "text", "text": prompt.system}]
        turns = [{"role": "system", "content": system}] if prompt.system else []
        text = self._processor.apply_chat_template(
            [*turns, {"role": "user", "content": user}], tokenize=False, add_generation_prompt=True
        )
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W)
        # The frames are chosen already: the library would choose among them once more.
        inputs = self._processor(
            text=[f"{text}{prompt.prefill}"],
            videos=[video],
            do_sample_frames=False,
            return_tensors="pt",
            **_times(len(frames), prompt.seconds),
        )
        return inputs.to(self._model.device)


def _times(count: int, seconds: float) -> dict[str, Any]:
    """Return what tells a processor when each of T frames is shown, for those that write it."""
    if not seconds:
        return {}
    times = {"fps": count / seconds, "duration": seconds, "total_num_frames": count}
    return {"video_metadata": [{**times, "frames_indices": list(range(count))}]}
