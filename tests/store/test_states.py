import itertools

import pytest

from store.states import (
    LIVE,
    MAX_SAME_FAILURES,
    TERMINAL,
    TRANSITIONS,
    Budgets,
    Desired,
    Outcome,
    RunState,
    decide,
    job_status,
)

CASES = list(itertools.product(RunState, Desired, [None, *Outcome], [False, True]))


def test_every_state_has_its_transitions_and_only_terminal_states_have_none():
    assert TRANSITIONS.keys() == set(RunState)
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL


def test_every_decision_is_a_transition_or_stays():
    for state, desired, outcome, is_blocked in CASES:
        if outcome is None or state in LIVE:
            decision = decide(state, desired, outcome, Budgets(), is_blocked=is_blocked)
            assert decision.state is state or decision.state in TRANSITIONS[state], (state, desired, outcome)


def test_an_ended_attempt_never_leaves_its_run_live():
    for state, desired, outcome, _ in CASES:
        if outcome is not None and state in LIVE:
            assert decide(state, desired, outcome, Budgets()).state not in LIVE


def test_a_terminal_state_is_never_left():
    for state, desired in itertools.product(TERMINAL, Desired):
        assert decide(state, desired).state is state


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("state", sorted(LIVE))
def test_a_cancel_wins_over_every_outcome(state, outcome):
    assert decide(state, Desired.CANCEL, outcome, Budgets()).state is RunState.CANCELLED


def test_an_outcome_of_a_run_that_nobody_holds_is_our_mistake():
    with pytest.raises(AssertionError):
        decide(RunState.QUEUED, Desired.RUN, Outcome.SUCCEEDED)


def test_a_pause_spares_the_budget_of_an_attempt_killed_while_stopping():
    decision = decide(RunState.STOPPING, Desired.PAUSE, Outcome.INFRA, Budgets())
    assert (decision.state, decision.is_infra_failure) == (RunState.PAUSED, False)


def test_a_run_that_finished_while_it_was_to_pause_has_succeeded():
    assert decide(RunState.STOPPING, Desired.PAUSE, Outcome.SUCCEEDED, Budgets()).state is RunState.SUCCEEDED


def test_a_drained_run_is_queued_again_and_counts_as_no_failure():
    decision = decide(RunState.RUNNING, Desired.RUN, Outcome.STOPPED, Budgets(infra_failures=5))
    assert (decision.state, decision.delay_seconds, decision.is_infra_failure) == (RunState.QUEUED, 0, False)


def test_a_run_that_pauses_itself_waits_for_a_person():
    assert decide(RunState.RUNNING, Desired.RUN, Outcome.PAUSED, Budgets()).state is RunState.PAUSED
    assert decide(RunState.STOPPING, Desired.PAUSE, Outcome.PAUSED, Budgets()).state is RunState.PAUSED


@pytest.mark.parametrize("outcome", [Outcome.USER, Outcome.NON_FINITE, Outcome.COLLAPSED])
def test_what_a_retry_would_repeat_is_not_retried(outcome):
    assert decide(RunState.RUNNING, Desired.RUN, outcome, Budgets()).state is RunState.FAILED


def test_infrastructure_is_retried_with_a_doubling_back_off_up_to_a_minute():
    delays = [
        decide(
            RunState.RUNNING, Desired.RUN, Outcome.INFRA, Budgets(max_infra_failures=9, infra_failures=failures)
        ).delay_seconds
        for failures in range(9)
    ]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize("outcome", [Outcome.INFRA, Outcome.LOST])
def test_one_failure_more_than_the_budget_fails_the_run(outcome):
    def state_after(failures: int) -> RunState:
        budgets = Budgets(max_infra_failures=2, infra_failures=failures)
        return decide(RunState.RUNNING, Desired.RUN, outcome, budgets).state

    assert [state_after(failures) in TERMINAL for failures in range(3)] == [False, False, True]
    assert state_after(2) is RunState.FAILED


def test_a_lost_attempt_is_followed_by_another_at_once():
    decision = decide(RunState.RUNNING, Desired.RUN, Outcome.LOST, Budgets())
    assert (decision.state, decision.delay_seconds) == (RunState.QUEUED, 0)


def test_out_of_memory_is_tried_once_more():
    first = decide(RunState.RUNNING, Desired.RUN, Outcome.OOM, Budgets())
    second = decide(RunState.RUNNING, Desired.RUN, Outcome.OOM, Budgets(oom_failures=1))
    assert (first.state, second.state) == (RunState.RETRY_WAIT, RunState.FAILED)


def test_the_same_failure_three_times_in_a_row_is_quarantined():
    states = [
        decide(RunState.RUNNING, Desired.RUN, Outcome.INFRA, Budgets(infra_failures=n, same_failures=n)).state
        for n in range(MAX_SAME_FAILURES)
    ]
    assert states == [RunState.RETRY_WAIT, RunState.RETRY_WAIT, RunState.QUARANTINED]


def test_a_paused_run_resumes_into_waiting_while_dependencies_are_unfinished():
    assert decide(RunState.PAUSED, Desired.RUN, is_blocked=True).state is RunState.BLOCKED
    assert decide(RunState.PAUSED, Desired.RUN).state is RunState.QUEUED


@pytest.mark.parametrize(
    ("states", "status"),
    [
        (["queued", "queued"], "queued"),
        (["blocked"], "queued"),
        (["cancelled", "queued"], "queued"),
        (["leased", "queued"], "running"),
        (["stopping"], "running"),
        (["succeeded", "queued"], "running"),
        (["retry_wait"], "running"),
        (["paused", "succeeded"], "paused"),
        (["paused", "blocked"], "paused"),
        (["paused", "queued"], "queued"),
        (["paused", "running"], "running"),
        (["succeeded", "succeeded"], "succeeded"),
        (["succeeded", "cancelled"], "cancelled"),
        (["succeeded", "failed", "cancelled"], "failed"),
        (["quarantined", "succeeded"], "failed"),
    ],
)
def test_a_jobs_status_follows_from_its_runs(states, status):
    assert job_status(states) == status
