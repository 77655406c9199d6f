"""The application: `create_app(settings)`."""

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from starlette.staticfiles import StaticFiles

from api import errors, openapi
from api.auth import Gate, authorize, check_policies
from api.dashboard.routes import router as dashboard
from api.dependencies import known_parameters
from api.metrics import RequestMetrics
from api.middleware import BodyCap, HostAllowList, RequestContext
from api.routes import (
    aliases,
    api_keys,
    audit,
    benchmarks,
    checkpoints,
    checks,
    comparisons,
    datasets,
    deletions,
    documentation,
    experiments,
    health,
    jobs,
    models,
    outputs,
    overview,
    prices,
    projects,
    records,
    results,
    rewards,
    rollouts,
    runs,
    samples,
    schedules,
    scores,
    searches,
    storage,
    suites,
    verdicts,
    webhooks,
    workers,
)
from api.streaming import Hub
from store.database import Database, make_engine
from store.settings import Settings

STATIC = Path(__file__).parent / "dashboard" / "static"
_ROUTERS = (
    overview.router,
    jobs.router,
    records.router,
    checks.router,
    prices.router,
    experiments.router,
    searches.router,
    runs.router,
    rewards.router,
    rollouts.router,
    samples.router,
    outputs.router,
    scores.router,
    checkpoints.router,
    models.router,
    deletions.router,
    storage.router,
    aliases.router,
    datasets.router,
    results.router,
    comparisons.router,
    benchmarks.router,
    suites.router,
    verdicts.router,
    workers.router,
    schedules.router,
    webhooks.router,
    api_keys.router,
    projects.router,
    audit.router,
    health.router,
    documentation.router,
    dashboard,
)


def create_app(settings: Settings) -> FastAPI:
    """The API and the dashboard over one database. Nothing is served without a policy: `check_policies` sees to it."""
    app = FastAPI(
        title="LCO platform",
        summary="Training and evaluation for Logits Convex Optimization.",
        version=_version(),
        openapi_url=None,  # documentation.py serves them, behind a key as everything else
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        # Spans alone, where tracing.start ran; those of machines that look every second would bury the others.
        telemetry={"metrics": False, "logs": False, "operation_spans": False, "exclude": _is_untraced},
    )
    app.state.query_names = {}
    app.state.metrics = RequestMetrics()
    connect(app, settings)
    errors.install(app)
    for router in _ROUTERS:  # without a router of their own around them, which each request would be matched with, too
        app.include_router(router, dependencies=[Depends(authorize), Depends(known_parameters)])
    app.mount("/static", _Static(directory=STATIC), name="static")
    # The last one added is the outermost.
    app.add_middleware(BodyCap, uncapped=frozenset({"/v1/datasets"}))  # its upload counts by itself
    app.add_middleware(HostAllowList, hosts=[host.strip() for host in settings.allowed_hosts.split(",")])
    app.add_middleware(RequestContext, metrics=app.state.metrics)
    check_policies(app, open_mounts=frozenset({"/static"}))
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]
    return app


def connect(app: FastAPI, settings: Settings) -> None:
    """Points an application at the database of some settings: what it keeps between requests begins anew."""
    app.state.settings = settings
    app.state.database = Database(make_engine(settings))
    app.state.gate = Gate(app.state.database)
    app.state.hub = Hub(app.state.database, app.state.metrics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.hub.close()
    app.state.database.dispose()


def _is_untraced(scope: MutableMapping[str, Any]) -> bool:
    path = str(scope.get("path", ""))
    return path in ("/healthz", "/readyz", "/metrics") or path.startswith("/static/")


class _Static(StaticFiles):
    """Static files; a browser asks each time whether its copy is still good."""

    def file_response(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        """The file, or 304."""
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


def _version() -> str:
    try:
        return version("lco-platform")
    except PackageNotFoundError:
        return "0"
