"""Models that are none, for tests of what asks them."""

import time

import numpy as np

from msvqa.mvbench.adapters.adapter import Adapter
from msvqa.mvbench.prompts import LETTERS


class Saying(Adapter):
    """Says the words that `model` is, and keeps what it was shown."""

    def __init__(self, source):
        super().__init__(source)
        self.seen = []

    def generate(self, frames, prompt):
        self.seen.append((frames, prompt))
        return self.source.model


class Echoing(Adapter):
    """Is told the right letters in the order of the questions."""

    letters: list = []

    def generate(self, frames, prompt):
        return f"{type(self).letters.pop(0)})"


class Mean(Adapter):
    """Answers by what the frames look like, in two ways that agree."""

    def generate(self, frames, prompt):
        letters = [line[1] for line in prompt.user.splitlines() if line[:1] == "("]
        return f"{letters[int(self.letter_logits(frames, prompt, letters).argmax())]})"

    def letter_logits(self, frames, prompt, letters):
        weights = np.arange(1, len(frames) + 1)[:, None, None, None]
        value = int((frames.astype(np.int64) * weights).sum()) // 1000
        return np.array([float((value >> n) % 97) for n in range(len(letters))])


class Weighing(Saying):
    """Finds every character of a text equally likely."""

    def text_logprobs(self, frames, prompt, texts):
        assert all(text[1:3] == ") " for text in texts), "the bracket is in the prompt already"
        return [np.full(len(text), -1.0) for text in texts]


class Slow(Mean):
    """Takes a while, so that it can be killed."""

    def generate(self, frames, prompt):
        time.sleep(0.02)
        return super().generate(frames, prompt)


class Failing(Mean):
    """Answers as many questions as `model` says."""

    left = 0

    @property
    def name(self):
        return "failing"

    def generate(self, frames, prompt):
        if type(self).left == 0:
            raise KeyboardInterrupt
        type(self).left -= 1
        return super().generate(frames, prompt)


class Mute(Adapter):
    """Says nothing, and does not begin answers."""

    supports_prefill = False

    def generate(self, frames, prompt):
        assert prompt.prefill == ""
        assert prompt.user.endswith("\nBest option:(")
        return ""


class Knowing(Adapter):
    """Knows which text is right for each question, whatever letter it has."""

    right: dict = {}

    def generate(self, frames, prompt):
        question = next(line for line in prompt.user.splitlines() if line.startswith("Question: "))
        answers = self.right[question.removeprefix("Question: ")]
        lines = [line for line in prompt.user.splitlines() if line[:1] == "("]
        found = [line[1] for line in lines if line[4:] in answers]
        return f"{found[0]})" if found else LETTERS[0]
