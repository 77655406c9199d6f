"""Benchmarks that an evaluation may name."""

import inspect
from functools import cache

from fastapi import APIRouter, Request, Response
from pydantic import TypeAdapter

from api import schemas
from api.auth import requires
from api.conditional import object_response
from api.errors import ApiError
from api.pagination import make_page, page_response
from api.service_schemas import BenchmarkRead
from evaluation.benchmarks import BENCHMARKS
from evaluation.config import BenchmarkConfig

router = APIRouter(prefix="/v1/benchmarks", tags=["benchmarks"])


@cache
def _all() -> dict[str, BenchmarkRead]:
    schema = TypeAdapter(BenchmarkConfig).json_schema()
    places = {name: place.rpartition("/")[2] for name, place in schema["discriminator"]["mapping"].items()}
    definitions = schema["$defs"]
    return {
        name: BenchmarkRead(
            id=name,
            description=inspect.getdoc(benchmark) or "",
            version=benchmark.version,
            metrics=list(benchmark.metrics),
            config_schema={**definitions[places[name]], "$defs": definitions},
        )
        for name, benchmark in sorted(BENCHMARKS.items())
    }


def every_benchmark() -> list[BenchmarkRead]:
    """Every benchmark, by name."""
    return list(_all().values())


@router.get("", operation_id="benchmarks.list", response_model=schemas.Page[BenchmarkRead])
@requires("read")
def list_benchmarks(request: Request) -> Response:
    """Every benchmark, by name; all on one page."""
    data = every_benchmark()
    return page_response(request, make_page(data, False, [item.id for item in data]))


@router.get("/{benchmark_id}", operation_id="benchmarks.get", response_model=BenchmarkRead)
@requires("read")
def get(request: Request, benchmark_id: str) -> Response:
    """One benchmark, with the JSON Schema of its configuration."""
    found = _all().get(benchmark_id)
    if found is None:
        raise ApiError(404, "not_found", "there is no such benchmark")
    return object_response(request, found)
