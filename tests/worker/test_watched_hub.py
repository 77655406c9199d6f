"""The question to a hub, against a stand-in on loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from worker.hub import HubFailed, commit_of

COMMIT = "a" * 40


class Hub:
    """A stand-in for a hub: `answers` by path, else 404."""

    def __init__(self):
        self.answers, self.asked = {}, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append((self.path, self.headers.get("authorization")))
                status, content = hub.answers.get(self.path, (404, b"{}"))
                self.send_response(status)
                if status == 307:
                    self.send_header("location", "http://127.0.0.1:1/")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def say(self, repository, revision, commit):
        self.answers[f"/api/models/{repository}/revision/{revision}"] = (200, json.dumps({"sha": commit}).encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hub():
    with Hub() as running:
        yield running


def test_the_commit_of_a_revision_is_asked_for_with_the_token(hub):
    hub.say("acme/small", "refs%2Fpr%2F1", COMMIT)
    assert commit_of(hub.url, "acme/small", "refs/pr/1", "secret") == COMMIT
    assert hub.asked == [("/api/models/acme/small/revision/refs%2Fpr%2F1", "Bearer secret")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((404, b""), "no revision main"),
        ((401, b""), "token"),
        ((307, b""), "has moved"),
        ((503, b""), "answered 503"),
        ((200, b"<html>"), "names no commit"),
        ((200, b'{"sha": "main"}'), "names no commit"),
        ((200, b"[]"), "names no commit"),
        ((200, b"x" * 4_100_000), "too long"),
    ],
)
def test_what_is_no_commit_is_told(hub, answer, told):
    hub.answers["/api/models/acme/small/revision/main"] = answer
    with pytest.raises(HubFailed, match=told):
        commit_of(hub.url, "acme/small", "main")


def test_a_hub_that_is_away_is_told():
    with pytest.raises(HubFailed, match="cannot be asked"):
        commit_of("http://127.0.0.1:1", "acme/small", "main")
