"""The Celery app: `celery -A worker.app worker -P prefork -c SLOTS -Q lco.cpu` and `celery -A worker.app beat`."""

from store.settings import Settings
from worker.kinds import KINDS
from worker.tasks import make_app

app = make_app(Settings.from_environment(), KINDS)
