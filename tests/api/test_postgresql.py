"""The same API over PostgreSQL: what depends on the database most."""

import pytest

from store.settings import Settings
from tests.api.test_client import client as client  # fixtures and tests of other files run here once more
from tests.api.test_client import test_iterators_walk_all_pages as test_iterators_walk_all_pages
from tests.api.test_idempotency import (
    test_concurrent_posts_with_one_key_make_one_job as test_concurrent_posts_with_one_key_make_one_job,
)
from tests.api.test_idempotency import test_retry_is_replayed as test_retry_is_replayed
from tests.api.test_jobs import test_every_stored_text_is_read_again as test_every_stored_text_is_read_again
from tests.api.test_jobs import (
    test_experiment_shows_its_graph_with_live_states as test_experiment_shows_its_graph_with_live_states,
)
from tests.api.test_jobs import (
    test_metrics_logs_events_and_checkpoints_of_a_run as test_metrics_logs_events_and_checkpoints_of_a_run,
)
from tests.api.test_jobs import (
    test_results_and_completions_can_be_filtered_and_paged as test_results_and_completions_can_be_filtered_and_paged,
)
from tests.api.test_jobs import test_table_of_results_over_seeds as test_table_of_results_over_seeds
from tests.api.test_jobs import test_verbs_of_a_running_run as test_verbs_of_a_running_run
from tests.api.test_streams import (
    test_live_stream_tells_states_metrics_and_the_end as test_live_stream_tells_states_metrics_and_the_end,
)


@pytest.fixture
def sqlite_settings(postgres_settings: Settings) -> Settings:
    """What the fixtures of the application build on is PostgreSQL in this file."""
    return postgres_settings
