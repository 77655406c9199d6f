"""Where webhooks go, and where they do not."""

import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook

from store.deliveries import new_secret
from store.egress import EmailChannel, WebhookChannel, check_channel, is_public
from store.errors import Invalid
from tests.worker.receiver import Receiver
from worker.outbound import post, signed_headers

BODY = b'{"type":"job.failed"}'


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "::",
        "100.64.0.1", "100.100.100.200", "192.0.0.8", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255",
        "240.0.0.1",
        "168.63.129.16", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::", "2001::1", "2001:db8::1", "5f00::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_of_the_internet_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"])
def test_addresses_of_the_internet_are_known(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "http://127.0.0.1:1/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/",
        "https://10.0.0.1/hook", "https://169.254.169.254/latest/meta-data", "https://[64:ff9b::7f00:1]/", "https://x.localhost/",
    ],
)  # fmt: skip
def test_what_an_operator_does_not_list_is_refused_when_it_is_named(settings, url):
    with pytest.raises(Invalid) as refusal:
        check_channel(settings, WebhookChannel(kind="webhook", url=url))
    assert refusal.value.pointer == "/channel/url"


def test_what_an_operator_lists_and_public_https_may_be_named(settings):
    listing = settings.model_copy(update={"webhook_origins": "http://127.0.0.1:9000"})
    check_channel(listing, WebhookChannel(kind="webhook", url="http://127.0.0.1:9000/hook?key=1"))
    check_channel(settings, WebhookChannel(kind="webhook", url="https://hooks.example.com/x"))
    with pytest.raises(Invalid):
        check_channel(listing, WebhookChannel(kind="webhook", url="http://127.0.0.1:9001/hook"))


@pytest.mark.parametrize(
    "url", ["ftp://x/", "https://user:secret@example.com/", "https://example.com/#f", "//x", "https://ex ample.com/"]
)
def test_a_url_that_is_none_is_refused_without_being_repeated(url):
    with pytest.raises(ValueError, match="url") as refusal:
        WebhookChannel(kind="webhook", url=url)
    assert "secret" not in str(refusal.value.errors(include_input=False))


@pytest.mark.parametrize("to", ["x", "a@b@c", "a@b\nBcc: c@d", "a b@c.de", "a@", "a@-b", "a,b@c.de"])
def test_what_is_not_one_mail_address_is_refused(to):
    with pytest.raises(ValueError, match="e-mail address"):
        EmailChannel(kind="email", to=to)


def resolving(monkeypatch, *addresses):
    """`hook.example` has these addresses, one after the other: a rebinding name server."""
    real, left = socket.getaddrinfo, list(addresses)

    def found(host, port, *others, **more):
        if host not in ("hook.example", b"hook.example"):
            return real(host, port, *others, **more)
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch, address):
    resolving(monkeypatch, address)
    answer = post("https://hook.example/x", {}, BODY, frozenset())
    assert "not public" in answer.error
    assert answer.code is None


def test_a_listed_origin_still_leads_to_no_metadata(monkeypatch):
    resolving(monkeypatch, "169.254.169.254")
    answer = post("http://hook.example/x", {}, BODY, frozenset({"http://hook.example:80"}))
    assert "no server's" in answer.error


def test_no_connection_is_made_to_what_is_refused():
    with Receiver() as receiver:
        assert post(f"{receiver.origin}/x", {}, BODY, frozenset()).error
        assert post(receiver.origin.replace("http", "https"), {}, BODY, frozenset()).error
    assert receiver.posts == []


def test_a_redirect_is_a_failure_and_is_not_followed():
    with Receiver() as other, Receiver(lambda *_: (302, {"location": f"{other.origin}/x"}, b"")) as receiver:
        answer = post(f"{receiver.origin}/x", {}, BODY, frozenset({receiver.origin, other.origin}))
    assert (answer.code, answer.error) == (302, "it answered 302")
    assert other.posts == []


def test_the_signature_is_that_of_standard_webhooks_for_each_secret():
    old, new = new_secret(), new_secret()
    with Receiver() as receiver:
        headers = signed_headers("ntf_1", int(time.time()), BODY, [new, old])
        answer = post(f"{receiver.origin}/x?key=1", headers, BODY, frozenset({receiver.origin}))
    assert (answer.error, answer.code) == ("", 204)
    (got,) = receiver.posts
    assert got.path == "/x?key=1"
    for secret in (old, new):
        assert Webhook(secret).verify(got.body, got.headers) == {"type": "job.failed"}
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(new_secret()).verify(got.body, got.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(new).verify(got.body + b" ", got.headers)


def test_of_a_long_answer_the_start_is_read_and_its_status_counts():
    with Receiver(lambda *_: (500, {}, b"x" * 2_000_000)) as receiver:
        answer = post(receiver.origin, {}, BODY, frozenset({receiver.origin}))
    assert answer.error == "it answered 500"
    assert 0 < len(answer.body) <= 4096


def test_a_server_that_drips_is_cut_off():
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"

    def drip():
        connection, _ = listener.accept()
        with connection:
            try:
                for character in b"HTTP/1.1 200 OK\r\n" * 10:
                    connection.sendall(bytes([character]))
                    time.sleep(0.05)
            except OSError:
                pass

    thread = threading.Thread(target=drip)
    thread.start()
    answer = post(origin, {}, BODY, frozenset({origin}), seconds=0.4)
    thread.join()
    listener.close()
    assert answer.error == "no answer within 0.4 s"
    assert answer.duration_milliseconds < 2000


def test_retry_after_is_understood_as_seconds_and_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    answers = iter(["120", later, "soon", "-5"])
    with Receiver(lambda *_: (429, {"retry-after": next(answers)}, b"")) as receiver:
        waits = [post(receiver.origin, {}, BODY, frozenset({receiver.origin})).retry_after_seconds for _ in range(4)]
    assert waits[0] == 120
    assert 80 < waits[1] <= 90
    assert waits[2:] == [0, 0]


def test_nobody_there_and_an_untrusted_certificate_are_told(certificate):
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    assert post(origin, {}, BODY, frozenset({origin})).error == "it cannot be connected to"
    with Receiver() as receiver:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(*certificate)
        receiver._server.socket = server.wrap_socket(receiver._server.socket, server_side=True)
        origin = receiver.origin.replace("http", "https")
        trusting = ssl.create_default_context(cafile=certificate[0])
        assert post(origin, {}, BODY, frozenset({origin}), tls=trusting).error == ""
        receiver._server.handle_error = lambda *_: None
        assert post(origin, {}, BODY, frozenset({origin})).error == "the certificate is not trusted"
