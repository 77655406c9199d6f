"""A loopback server that takes webhooks, and one that takes mail: what came, and what is answered."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Post:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Serves until closed; use it with `with`. `answer` gives status, headers and body for the n-th request."""

    def __init__(self, answer: Callable[[Post, int], tuple[int, dict[str, str], bytes]] | None = None) -> None:
        self.posts: list[Post] = []
        self.answer = answer or (lambda post, number: (204, {}, b""))
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                post = Post(self.path, {name.lower(): text for name, text in self.headers.items()}, body)
                receiver.posts.append(post)
                status, headers, content = receiver.answer(post, len(receiver.posts))
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name, text)
                if status != 204:
                    self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Mailbox:
    """What a mail server was told; `replies` overrides its answers by command."""

    mails: list[tuple[str, str, str]] = field(default_factory=list)
    """Sender, recipient, text."""
    commands: list[str] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)


class MailServer:
    """A small SMTP server on loopback, with STARTTLS and AUTH PLAIN where it has a certificate."""

    def __init__(self, tls: ssl.SSLContext | None = None, is_implicit: bool = False) -> None:
        self.box = box = Mailbox()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connection: socket.socket = self.request
                if tls is not None and is_implicit:
                    connection = tls.wrap_socket(connection, server_side=True)
                stream = connection.makefile("rb")
                is_secure = is_implicit
                sender = recipient = ""

                def say(text: str) -> None:
                    connection.sendall(text.encode() + b"\r\n")

                say("220 here")
                while line := stream.readline().decode().strip():
                    word = line.split(":")[0].split()[0].upper()
                    box.commands.append(line)
                    if word in box.replies:
                        say(box.replies[word])
                    elif word == "EHLO":
                        offers = ["here", *(["STARTTLS"] if tls and not is_secure else ["AUTH PLAIN"])]
                        for number, offer in enumerate(offers, start=1):
                            say(f"250{' ' if number == len(offers) else '-'}{offer}")
                    elif word == "STARTTLS" and tls is not None:
                        say("220 go on")
                        connection = tls.wrap_socket(connection, server_side=True)
                        stream, is_secure = connection.makefile("rb"), True
                    elif word == "AUTH":
                        say("235 welcome")
                    elif word == "MAIL":
                        sender = line
                        say("250 ok")
                    elif word == "RCPT":
                        recipient = line
                        say("250 ok")
                    elif word == "DATA":
                        say("354 go on")
                        text = b""
                        while not text.endswith(b"\r\n.\r\n"):
                            text += stream.readline()
                        box.mails.append((sender, recipient, text.decode()))
                        say("250 taken")
                    elif word == "QUIT":
                        say("221 bye")
                        break
                    else:
                        say("502 no")
                stream.close()
                connection.close()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> "MailServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
