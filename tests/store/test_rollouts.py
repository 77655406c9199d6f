"""Rollouts as rows: guarded, overwritten by a later attempt, paged both ways."""

import pytest

from store.errors import NotYours
from store.queue import append_rollouts
from store.repositories.rollouts import Rollouts
from store.rows import RolloutRow
from store.states import Outcome


def rollout(iteration: int, position: int, **changes) -> RolloutRow:
    fields = {
        "prompt_id": "p",
        "prompt": "1+1=\x00",
        "reference": "2",
        "num_tokens": 3,
        "is_truncated": False,
        "reward": 1.0,
        "is_correct": True,
        "parts": {"format": 0.5},
        "pieces": ["2", ""],
        "advantages": [0.5, -0.5],
        "logprobs": [-0.1, -0.2],
    }
    return RolloutRow(iteration=iteration, position=position, **(fields | changes))


def test_rollouts_are_paged_both_ways_and_by_iteration(rig):
    rig.submit("sft")
    taken = rig.started()
    with rig.database.write() as session:
        append_rollouts(session, taken, [rollout(i, p) for i in (0, 10) for p in (0, 1, 4)])
    with rig.database.read() as session:
        rollouts = Rollouts(session)
        assert rollouts.iterations(taken.run_id) == [0, 10]
        first = rollouts.page(taken.run_id, 4)
        rest = rollouts.page(taken.run_id, 4, (first.rows[-1].iteration, first.rows[-1].position))
        assert [(r.iteration, r.position) for r in first.rows + rest.rows] == [
            (0, 0),
            (0, 1),
            (0, 4),
            (10, 0),
            (10, 1),
            (10, 4),
        ]
        assert first.has_more and not rest.has_more
        backwards = rollouts.page(taken.run_id, 3, (10, 1), "desc")
        assert [(r.iteration, r.position) for r in backwards.rows] == [(10, 0), (0, 4), (0, 1)]
        assert [r.position for r in rollouts.page(taken.run_id, iteration=10).rows] == [0, 1, 4]
        row = first.rows[0]
        assert (row.prompt, row.parts, row.pieces, row.advantages) == (
            "1+1=\ufffd",
            {"format": 0.5},
            ["2", ""],
            [0.5, -0.5],
        )


def test_a_later_attempt_overwrites_and_a_lost_one_writes_nothing(rig):
    rig.submit("sft")
    first = rig.started()
    with rig.database.write() as session:
        append_rollouts(session, first, [rollout(0, 0, reward=None)])
    rig.finish(first, Outcome.STOPPED)
    second = rig.started()
    with rig.database.write() as session:
        append_rollouts(session, second, [rollout(0, 0, reward=2.0)])
    with pytest.raises(NotYours), rig.database.write() as session:
        append_rollouts(session, first, [rollout(0, 0, reward=3.0)])
    with rig.database.read() as session:
        (row,) = Rollouts(session).page(second.run_id).rows
        assert (row.reward, row.attempt) == (2.0, 2)
