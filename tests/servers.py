"""Servers for the tests: a URL of one's own, else a child process of this test session (see `api.local_services`)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
