"""Servers for the tests: a URL of one's own, else a child process of this test session (see `api.local_services`)."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg

from api.local_services import forget, start_postgresql, start_redis


@contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """A SQLAlchemy URL of a PostgreSQL server on which this role may create databases."""
    if url := os.environ.get("LCO_TEST_DATABASE_URL"):
        yield url
        return
    server = start_postgresql(directory, durable=False)
    try:
        yield server.url
    finally:
        server.stop()
        forget(directory)


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A URL of a Redis server."""
    if url := os.environ.get("LCO_TEST_REDIS_URL"):
        yield url
        return
    server = start_redis(directory, durable=False)
    try:
        yield server.url
    finally:
        server.stop()
        forget(directory)


@contextmanager
def new_database(server_url: str, template: str = "template1") -> Iterator[str]:
    """The SQLAlchemy URL of a database that is dropped afterwards, with whoever is still connected to it."""
    name = f"lco_test_{uuid4().hex}"
    address = server_url.replace("postgresql+psycopg:", "postgresql:")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield f"{server_url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def s3(directory: Path) -> Iterator[str]:
    """Address of an S3 server on loopback (moto), in a process of its own."""
    log = directory / "s3.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
