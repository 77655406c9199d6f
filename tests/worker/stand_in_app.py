"""`celery -A tests.worker.stand_in_app worker`: the platform's Celery app with stand-in processes."""

from store.settings import Settings
from tests.worker.stand_in_kinds import STAND_INS
from worker.tasks import make_app

app = make_app(Settings.from_environment(), STAND_INS)
