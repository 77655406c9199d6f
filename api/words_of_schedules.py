"""Triggers and actions of schedules in a few words, for pages and terminals."""

from collections.abc import Mapping
from typing import Any

from store.schedule_specs import (
    ACTION,
    TRIGGER,
    AliasSelection,
    CronTrigger,
    DirectoryTrigger,
    ExperimentAction,
    JobAction,
    NewestSelection,
)


def trigger_text(document: Mapping[str, Any]) -> str:
    """When: `30 2 * * * Europe/Berlin`."""
    trigger = TRIGGER.validate_python(document)
    if isinstance(trigger, CronTrigger):
        return f"{trigger.expression} {trigger.time_zone}"
    if isinstance(trigger, DirectoryTrigger):
        return f"a new model {trigger.pattern}"
    return f"a new {trigger.repository}@{trigger.revision}"


def action_text(document: Mapping[str, Any]) -> str:
    """What: `sft job warm-up`."""
    action = ACTION.validate_python(document)
    if isinstance(action, JobAction):
        return f"{action.spec.get('kind', '')} job {action.spec.get('name', '')}".strip()
    if isinstance(action, ExperimentAction):
        return f"experiment {action.document.get('name', '')}".strip()
    chosen = action.checkpoints
    if isinstance(chosen, AliasSelection):
        return f"verdict on alias:{chosen.alias}"
    if isinstance(chosen, NewestSelection):
        return f"verdicts on the newest {chosen.newest}" + (f" of {chosen.job}" if chosen.job else "")
    return "verdict on what was found"
