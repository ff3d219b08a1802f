"""A model behind a server: what is sent, what is made of answers, and that the key stays secret."""

import json
import logging
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msvqa import cli
from msvqa.errors import ServerError
from msvqa.mvbench.adapters import server as module
from msvqa.mvbench.adapters.adapter import Source
from msvqa.mvbench.adapters.server import KEY_VARIABLE, Server
from msvqa.mvbench.prompts import official
from msvqa.mvbench.results import read_results

KEY = "sk-very-secret-5071"
FRAMES = np.zeros((2, 24, 32, 3), dtype=np.uint8) + np.array([200, 30, 40], dtype=np.uint8)
PROMPT = official("Why?", ["this", "that"])


class Answering(BaseHTTPRequestHandler):
    """Answers with what its server was told, and keeps what it was sent."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), json.loads(body)))
        planned = self.server.answers
        status, content, headers = planned.pop(0) if len(planned) > 1 else planned[0]
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def saying(text):
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAITS_S", (0.0, 0.0))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    # A proxy of the environment must not see what is for this machine.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as found:
        found.requests, found.answers = [], [saying("A")]
        found.url = f"http://127.0.0.1:{found.server_port}"
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def adapter_of(server, **fields):
    return Server(Source(model="tiny", server=server.url, timeout_s=5.0, **fields))


def test_frames_travel_as_images_before_the_words(server):
    assert adapter_of(server).generate(FRAMES, PROMPT.without_prefill()) == "A"
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0, 100)
    system, user = body["messages"]
    assert system == {"role": "system", "content": PROMPT.system}
    *images, text = user["content"]
    assert text["text"] == f"{PROMPT.user}\nBest option:("
    assert len(images) == 2
    head, _, encoded = images[0]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    picture = np.asarray(Image.open(BytesIO(b64decode(encoded))))
    assert picture.shape == (24, 32, 3)
    assert np.abs(picture.astype(int) - FRAMES[0]).max() < 6


def test_an_answer_is_begun_only_where_the_server_goes_on_with_it(server):
    assert not adapter_of(server).supports_prefill
    begun = adapter_of(server, prefill=True)
    assert begun.supports_prefill
    server.answers = [saying("Best option:(B) that")]
    assert begun.generate(FRAMES, PROMPT) == "B) that"
    body = server.requests[-1][2]
    assert body["messages"][-1] == {"role": "assistant", "content": "Best option:("}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_spellings_of_a_letter_are_added_up(server):
    tokens = [("A", -1.0), (" A", -1.0), ("B", -2.0), ("The", -0.5), ("b", -0.1)]
    top = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    content = [{"token": "A", "logprob": -1.0, "top_logprobs": top}]
    server.answers = [(200, {"choices": [{"logprobs": {"content": content}}]}, {})]
    found = adapter_of(server).letter_logits(FRAMES, PROMPT.without_prefill(), "ABC")
    assert found[:2] == pytest.approx([-1 + np.log(2), -2])
    assert found[2] == -np.inf
    assert server.requests[0][2]["max_tokens"] == 1
    server.answers = [saying("A")]
    with pytest.raises(ServerError, match="no log-probabilities; --predict generate"):
        adapter_of(server).letter_logits(FRAMES, PROMPT, "AB")


def test_what_may_pass_is_tried_again(server):
    server.answers = [(503, b"busy", {}), (429, b"slow down", {}), saying("B")]
    assert adapter_of(server).generate(FRAMES, PROMPT) == "B"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "said", "sent"),
    [
        ((400, f"bad key {KEY}".encode(), {}), r"answers 400 'bad key \*\*\*'", 1),
        ((500, b"broken", {}), "answers 500 'broken'", 3),
        ((200, b"<html>", {}), "no answer of a chat is in '<html>'", 1),
        ((200, {"choices": []}, {}), "no answer of a chat", 1),
        ((200, {"choices": [{"message": {"content": 7}}]}, {}), "is no text", 1),
        ((200, b"[" * 100_000, {}), "no answer of a chat", 1),
    ],
)
def test_what_goes_wrong_is_told_without_the_key(server, answer, said, sent):
    server.answers = [answer]
    with pytest.raises(ServerError, match=said) as raised:
        adapter_of(server).generate(FRAMES, PROMPT)
    assert KEY not in str(raised.value)
    assert len(server.requests) == sent


def test_a_redirect_does_not_take_the_key_elsewhere(server):
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as elsewhere:
        elsewhere.requests = []
        there = f"http://127.0.0.1:{elsewhere.server_port}/v1/chat/completions"
        for status in (301, 302, 307, 308):
            server.answers = [(status, b"", {"Location": there})]
            with pytest.raises(ServerError, match=str(status)):
                adapter_of(server).generate(FRAMES, PROMPT)
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "address",
    ["localhost:8000", "file:///etc/passwd", "http://", "http://me:key@host/v1", "http://host?k=1"],
)
def test_what_is_no_address_of_a_server_is_refused(address):
    with pytest.raises(ServerError, match=r"address"):
        Server(Source(model="tiny", server=address))


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ServerError, match="does not answer"):
        module.WAITS_S, before = (), module.WAITS_S
        try:
            Server(Source(model="m", server="http://127.0.0.1:9", timeout_s=2.0)).generate(
                FRAMES, PROMPT
            )
        finally:
            module.WAITS_S = before


@pytest.mark.long
def test_the_command_asks_a_server_and_the_key_is_nowhere(server, drawn, tmp_path, capsys, caplog):
    server.answers = [saying("B")]
    out = tmp_path / "server.jsonl"
    words = ["--server", f"{server.url}/v1", "--model", "tiny", "--frames", "2", "--part", "1/12"]
    with caplog.at_level(logging.DEBUG):
        assert cli.main(["mvbench", "run", str(drawn), "--out", str(out), *words]) == 0
    said = capsys.readouterr()
    assert len(server.requests) == 5
    assert len(read_results(out).rows) == 5
    assert "partial" in said.out
    assert "answer_begun=in the user's turn" in said.out
    everything = said.out + said.err + caplog.text + Path(out).read_text()
    assert KEY not in everything
