"""A model behind an OpenAI-compatible server: frames travel as JPEG images in the message.

Nothing else is fetched, redirects are not followed, and a key is taken from the environment alone
and appears in no message and no file.
"""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from msvqa.errors import ServerError
from msvqa.mvbench.adapters.adapter import Adapter, Source
from msvqa.mvbench.prompts import Prompt

KEY_VARIABLE = "MSVQA_SERVER_KEY"
"""A name of its own: a key of another service is never sent to a server that is only tried."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
JPEG_QUALITY = 92
MAX_ANSWER_BYTES = 8_000_000
WAITS_S = (1.0, 4.0, 16.0)
"""Before a request is sent again that failed in a way that may pass."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be others later."""
TOP_LOGPROBS = 20
"""As many as servers give."""
SHOWN = 300


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Lets a redirect fail: it would take the key elsewhere."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class Server(Adapter):
    """The model that a server has under a name."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self.supports_prefill = source.prefill
        self._url = f"{_base(source.server)}/chat/completions"
        self._key = os.environ.get(KEY_VARIABLE, "")
        handlers: list[Any] = [_NoRedirect()]
        if urlsplit(self._url).hostname in LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def generate(self, frames: np.ndarray, prompt: Prompt) -> str:
        """Return the message of the first choice."""
        choice = self._ask(frames, prompt, {"max_tokens": self.source.max_new_tokens})
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str | None):
            raise ServerError(f"{self._url}: the message of the answer is no text")
        # A server that continues a message may give it whole.
        return (text or "").removeprefix(prompt.prefill)

    def letter_logits(
        self, frames: np.ndarray, prompt: Prompt, letters: Sequence[str]
    ) -> np.ndarray:
        """Return log-probabilities of the letters, minus infinity where they are not among the top.

        Spellings of a letter, with a space or a bracket before it, are added up.
        """
        wanted = {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOGPROBS}
        choice = self._ask(frames, prompt, wanted)
        try:
            top = [
                (str(each["token"]), float(each["logprob"]))
                for each in choice["logprobs"]["content"][0]["top_logprobs"]
            ]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ServerError(
                f"{self._url}: this server gives no log-probabilities; --predict generate"
            ) from None
        found = np.full(len(letters), -np.inf)
        for token, logprob in top:
            if (letter := token.strip(" (\u0120\u2581")) in letters:
                place = list(letters).index(letter)
                found[place] = np.logaddexp(found[place], logprob)
        return found

    def _ask(self, frames: np.ndarray, prompt: Prompt, wanted: Mapping[str, Any]) -> dict[str, Any]:
        body = {
            "model": self.source.model,
            "messages": messages(frames, prompt),
            "temperature": 0,
            "seed": 0,
            **wanted,
        }
        if prompt.prefill:
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        answer = self._send(json.dumps(body).encode())
        try:
            choice = json.loads(answer)["choices"][0]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            choice = None
        if not isinstance(choice, dict):
            shown = self._without_key(answer.decode(errors="replace"))
            raise ServerError(f"{self._url}: no answer of a chat is in {shown!r}")
        return choice

    def _send(self, body: bytes) -> bytes:
        """Return the bytes of an answer; what may pass is tried again."""
        for wait_s in (*WAITS_S, None):
            try:
                return self._once(body)
            except urllib.error.HTTPError as error:
                words = self._without_key(error.read(MAX_ANSWER_BYTES).decode(errors="replace"))
                problem = f"it answers {error.code} {words!r}"
                if error.code not in PASSING or wait_s is None:
                    break
            except (OSError, HTTPException) as error:
                problem = f"it does not answer ({getattr(error, 'reason', None) or error})"
                if wait_s is None:
                    break
            time.sleep(wait_s)
        raise ServerError(f"{self._url}: {problem}; the same command goes on where this one ends")

    def _once(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "msvqa"}
        request = urllib.request.Request(self._url, body, headers)
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self.source.timeout_s) as response:
            answer: bytes = response.read(MAX_ANSWER_BYTES + 1)
        if len(answer) > MAX_ANSWER_BYTES:
            raise ServerError(f"{self._url}: an answer is longer than {MAX_ANSWER_BYTES} bytes")
        return answer

    def _without_key(self, text: str) -> str:
        return (text.replace(self._key, "***") if self._key else text)[:SHOWN]


def messages(frames: np.ndarray, prompt: Prompt) -> list[dict[str, Any]]:
    """Return a prompt as messages of a chat, the frames (T, H, W, 3) before the words."""
    images = [{"type": "image_url", "image_url": {"url": data_uri(frame)}} for frame in frames]
    found: list[dict[str, Any]] = []
    if prompt.system:
        found.append({"role": "system", "content": prompt.system})
    found.append({"role": "user", "content": [*images, {"type": "text", "text": prompt.user}]})
    if prompt.prefill:
        found.append({"role": "assistant", "content": prompt.prefill})
    return found


def data_uri(frame: np.ndarray) -> str:
    """Return a frame uint8 (H, W, 3) as a JPEG image within an address."""
    content = BytesIO()
    Image.fromarray(frame).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _base(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServerError(
            f"{address!r} is no address of a server, such as http://localhost:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ServerError(
            f"an address holds no key, and no '?' or '#': the key is taken from ${KEY_VARIABLE}"
        )
    return address.rstrip("/") if parts.path.strip("/") else f"{address.rstrip('/')}/v1"
