"""What is connected to, and what is not."""

import socket
import ssl
import subprocess
import threading
from contextlib import closing

import httpx2
import pytest

from evaluation.endpoint import Endpoint, EndpointFailure, EndpointRejected
from evaluation.transport import ForbiddenAddress, Transport, check_address
from lco.endpoint_config import OpenAiEndpoint
from tests.evaluation.judge_server import JudgeServer


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "168.63.129.16",
        "fd00:ec2::254", "100.100.100.200", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_plain", [True, False])
def test_addresses_that_are_no_servers_are_refused(address, is_plain):
    with pytest.raises(ForbiddenAddress):
        check_address(address, is_plain=is_plain)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.9", "fd12::1", "::ffff:127.0.0.1"])
def test_plain_http_goes_to_loopback_and_private_addresses(address):
    check_address(address, is_plain=True)


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808"])
def test_plain_http_goes_nowhere_else(address):
    check_address(address, is_plain=False)
    with pytest.raises(ForbiddenAddress, match="write https"):
        check_address(address, is_plain=True)


def ask(base_url, **changes):
    settings = {"backoff_seconds": 0.01, "max_attempts": 2, "timeout_seconds": 5.0} | changes
    with closing(Endpoint(OpenAiEndpoint(model="m", base_url=base_url, **settings), environment={})) as endpoint:
        return endpoint.chat([{"role": "user", "content": "hi"}], max_tokens=1, temperature=0.0)


def resolving(monkeypatch, *addresses):
    real = socket.getaddrinfo

    def found(host, port, *others, **more):
        if host != "judge.example":
            return real(host, port, *others, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_a_name_that_resolves_to_a_forbidden_address_is_refused_when_it_is_connected_to(monkeypatch):
    resolving(monkeypatch, "127.0.0.1", "169.254.169.254")
    with JudgeServer() as server, pytest.raises(EndpointRejected, match="no server's"):
        ask(server.origin.replace("127.0.0.1", "judge.example") + "/v1")
    assert server.calls == []


def test_the_next_address_of_a_name_is_tried(monkeypatch):
    resolving(monkeypatch, "127.0.0.2", "127.0.0.1")  # the server listens on the second alone
    with JudgeServer() as server:
        assert ask(server.origin.replace("127.0.0.1", "judge.example") + "/v1").text == "m"


def test_a_host_that_nobody_knows_is_a_failed_connection():
    with pytest.raises(EndpointFailure) as error:
        ask("http://nobody.invalid/v1")
    assert error.value.reason == "connection"


def test_a_request_for_another_origin_is_not_sent():
    with JudgeServer() as server, JudgeServer() as other:
        transport = Transport(OpenAiEndpoint(model="m", base_url=server.origin), ("authorization", "Bearer key"))
        request = httpx2.Request("POST", other.origin, extensions={"timeout": {"read": 5.0}})
        with pytest.raises(ForbiddenAddress):
            transport.handle_request(request)
        transport.close()
        assert server.calls == other.calls == []


def test_a_certificate_that_nobody_vouches_for_is_no_connection(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    received = []

    def serve(listener):
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        received.append(secured.recv(1000))
                except OSError:
                    continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(EndpointFailure) as error:
            ask(f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        thread.join()
    assert error.value.reason == "tls" and b"".join(received) == b""
