"""The API from Python: `Client`, and `AsyncClient` with the same methods.

    with Client() as client:                      # address and key of the platform that `lco up` started here
        experiment = client.submit_experiment(document)
        client.wait(experiment.id)
        for row in client.results_table(experiment=experiment.id).rows:
            print(row.method, row.mean, row.std)

Requests are tried again after 429, 5xx and lost connections; an Idempotency-Key makes that safe. An error raises
`ApiFailure`.
"""

from api.clients.access import Access, AsyncAccess
from api.clients.alerts import Alerts, AsyncAlerts
from api.clients.checks import AsyncChecks, Checks
from api.clients.jobs import AsyncJobs, Jobs
from api.clients.overview import AsyncOverview, Overview
from api.clients.projects import AsyncProjects, Projects
from api.clients.registry import AsyncRegistry, Registry
from api.clients.results import AsyncResults, Results
from api.clients.rewards import AsyncRewards, Rewards
from api.clients.searches import AsyncSearches, Searches
from api.clients.storage import AsyncStorage, Storage
from api.clients.suites import AsyncSuites, Suites
from api.transport import ApiFailure

__all__ = ["ApiFailure", "AsyncClient", "Client"]


class Client(Jobs, Registry, Storage, Results, Rewards, Searches, Access, Overview, Checks, Suites, Alerts, Projects):
    """The whole API; see `api.clients.base.Asking` for the arguments."""


class AsyncClient(
    AsyncJobs,
    AsyncRegistry,
    AsyncStorage,
    AsyncResults,
    AsyncRewards,
    AsyncSearches,
    AsyncAccess,
    AsyncProjects,
    AsyncOverview,
    AsyncChecks,
    AsyncSuites,
    AsyncAlerts,
):
    """`Client`'s methods, as coroutines and asynchronous iterators."""
