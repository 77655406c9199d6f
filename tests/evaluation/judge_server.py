"""A loopback server that speaks OpenAI's chat completions: scripted or replaying, with every trouble a judge can give.

`JudgeServer(answer)` serves on a thread of the process that makes it; `GET /stats` says what was asked of it.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen


@dataclass(frozen=True)
class Answer:
    """What the judge says: its text and the candidates of its first token."""

    text: str = "m"
    logprobs: dict[str, float] | None = field(default_factory=lambda: {"m": -0.1, "M": -2.3})
    form: str = "chat"
    """How the candidates are told: `chat` (`content[0].top_logprobs`) or `older` (`top_logprobs[0]`)."""
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 1})
    finish_reason: str = "length"

    def document(self) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text},
            "finish_reason": self.finish_reason,
        }
        if self.logprobs is not None and self.form == "chat":
            top = [{"token": token, "logprob": value, "bytes": None} for token, value in self.logprobs.items()]
            choice["logprobs"] = {"content": [{"token": self.text, "logprob": -0.1, "top_logprobs": top}]}
        elif self.logprobs is not None:
            choice["logprobs"] = {"tokens": [self.text], "top_logprobs": [self.logprobs]}
        document = {"id": "c", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]}
        return document | ({} if self.usage is None else {"usage": self.usage})


@dataclass
class Call:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    number: int
    """Of all requests, from 0."""
    repeat: int
    """How often the same messages were asked before."""
    at: float


Fault = str
"""`""` for none; else `500`, `429`, `429 SECONDS`, `429-date`, `stall`, `drip`, `cut`, `garbage`, `html`, `huge`,
`gzip`, `redirect`, or `STATUS CODE` for an error body with that code."""


class _Http(ThreadingHTTPServer):
    """One thread a connection; a client that goes away is no error."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class JudgeServer:
    """Serves until closed; use it with `with`."""

    def __init__(
        self,
        answer: Callable[[Call], Answer | bytes] | None = None,
        faults: Callable[[Call], Fault] | Iterable[Fault] = (),
        *,
        seconds: float = 0.0,
    ) -> None:
        """Args:
        answer: what a call is answered; bytes are sent as they are.
        faults: of a call, or of the first calls in the order in which they come.
        seconds: that every answer takes.
        """
        self.answer = answer or (lambda call: Answer())
        listed = None if callable(faults) else list(faults)
        self.fault = (
            faults if callable(faults) else lambda call: listed[call.number] if call.number < len(listed) else ""
        )
        self.seconds = seconds
        self.calls: list[Call] = []
        self.answered = 0
        self.in_flight = self.most_in_flight = 0
        self._repeats: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.is_closing = threading.Event()
        handler = type("Handler", (_Handler,), {"judge": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "JudgeServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def enter(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Call:
        with self._lock:
            key = json.dumps(body.get("messages"))
            call = Call(path, headers, body, len(self.calls), self._repeats[key], time.monotonic())
            self._repeats[key] += 1
            self.calls.append(call)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            return call

    def leave(self, was_answered: bool) -> None:
        with self._lock:
            self.in_flight -= 1
            self.answered += was_answered

    def stats(self) -> dict[str, Any]:
        with self._lock:
            return {
                "requests": len(self.calls),
                "answered": self.answered,
                "different": len(self._repeats),
                "repeated": sum(count - 1 for count in self._repeats.values()),
                "most_repeats": max(self._repeats.values(), default=1) - 1,
                "most_in_flight": self.most_in_flight,
            }

    def asked_stats(self) -> dict[str, Any]:
        """The statistics as `GET /stats` tells them."""
        with urlopen(f"{self.origin}/stats") as answer:
            return json.load(answer)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    judge: JudgeServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200 if self.path == "/stats" else 404, self.judge.stats())

    def do_POST(self) -> None:
        size = int(self.headers["content-length"])
        if len(content := self.rfile.read(size)) < size:  # the client was killed while it wrote
            self.close_connection = True
            return
        call = self.judge.enter(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(content))
        was_answered = False
        try:
            was_answered = self._answer(call, self.judge.fault(call))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.judge.leave(was_answered)

    def _answer(self, call: Call, fault: Fault) -> bool:
        judge = self.judge
        if judge.seconds:
            judge.is_closing.wait(judge.seconds)
        word, _, rest = fault.partition(" ")
        if fault == "stall":
            judge.is_closing.wait(60)
            self.close_connection = True
        elif fault == "redirect":
            self._send(307, {}, {"Location": f"{judge.origin}/elsewhere"})
        elif fault == "429-date":
            self._send(
                429, {"error": {"code": "slow_down"}}, {"Retry-After": formatdate(time.time() + 1.6, usegmt=True)}
            )
        elif word == "429" and (not rest or rest[0].isdigit()):
            self._send(429, {"error": {"code": "slow_down"}}, {"Retry-After": rest} if rest else {})
        elif word.isdigit():
            self._send(
                int(word), {"error": {"code": rest or None, "message": f"told {call.headers.get('authorization')}"}}
            )
        elif fault in ("cut", "drip"):
            body = json.dumps(Answer().document()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for byte in body[: len(body) // 2]:
                self.wfile.write(bytes([byte]))
                if fault == "drip" and judge.is_closing.wait(0.05):
                    break
            self.close_connection = True
        elif fault == "garbage":
            self._send(200, {"choices": [{"message": 7}]})
        elif fault == "html":
            self._send(200, b"<html>busy</html>", {"Content-Type": "text/html"})
        elif fault == "huge":
            self._send(200, b'{"pad": "' + b"x" * (1 << 17) + b'"}')
        elif fault == "gzip":
            self._send(200, Answer().document(), {"Content-Encoding": "gzip"})
        elif fault:
            raise AssertionError(fault)
        else:
            answer = judge.answer(call)
            self._send(200, answer if isinstance(answer, bytes) else answer.document())
            return True
        return False

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, text in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
