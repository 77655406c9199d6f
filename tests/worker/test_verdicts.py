"""Verdicts by reconcilers: what is due is asked for once and decided once, whoever is killed or runs twice."""

import threading

from sqlalchemy import update

from store.models.suite import SuiteVersion
from tests.store.conftest import Rig
from tests.store.laboratory import BAD, GOOD, Laboratory, answers
from tests.worker.conftest import Platform
from worker.reconciler import Reconciler


def tick_at_once(platform: Platform, num_reconcilers: int = 3) -> None:
    """Several reconcilers look at the same moment."""
    reconcilers = [Reconciler(platform.settings, platform.database) for _ in range(num_reconcilers)]
    start = threading.Barrier(num_reconcilers)

    def tick(reconciler: Reconciler) -> None:
        start.wait()
        reconciler.tick()

    threads = [threading.Thread(target=tick, args=[reconciler]) for reconciler in reconcilers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_several_reconcilers_take_a_new_checkpoint_to_one_verdict_and_one_promotion(any_platform: Platform) -> None:
    lab = Laboratory(Rig(any_platform.database, any_platform.settings))
    champion = lab.checkpoint()
    lab.name("champion", champion)
    lab.suite(triggers={"checkpoints": {"kinds": ["sft"]}}, promote={"alias": "best"})
    good, bad = lab.checkpoint(), lab.checkpoint()
    tick_at_once(any_platform)
    assert sorted(verdict.checkpoint_id for verdict in lab.verdicts()) == sorted([good, bad])
    evaluated = lab.evaluate({champion: answers(GOOD), good: answers(GOOD), bad: answers(BAD)})
    assert sorted(evaluated) == sorted([champion, good, bad])
    tick_at_once(any_platform)
    outcomes = {verdict.checkpoint_id: verdict.outcome for verdict in lab.verdicts()}
    assert outcomes == {good: "pass", bad: "regressed"}
    assert lab.named("best") == good
    assert [verdict.promoted_alias for verdict in lab.verdicts()] == ["best", ""]


def test_a_verdict_that_cannot_be_judged_does_not_keep_others_from_it(any_platform: Platform) -> None:
    lab = Laboratory(Rig(any_platform.database, any_platform.settings))
    champion = lab.checkpoint()
    lab.name("champion", champion)
    broken, sound = lab.suite(name="broken"), lab.suite(name="sound")
    for suite in (broken, sound):
        lab.request(suite, champion)
    lab.evaluate({champion: answers(GOOD)})
    with any_platform.database.write() as session:
        session.execute(update(SuiteVersion).where(SuiteVersion.suite_id == broken.id).values(plan={"of": "old"}))
    any_platform.reconcile().tick()
    first, second = lab.verdicts()
    assert (first.state, second.outcome) == ("error", "pass")
    assert "it cannot be judged" in first.reason
