"""Triggers and actions of schedules in a few words, for pages and terminals."""

from store.schedule_specs import (
    AliasSelection,
    CronTrigger,
    DirectoryTrigger,
    ExperimentAction,
    HubTrigger,
    JobAction,
    NewestSelection,
    SuiteAction,
)


def trigger_text(trigger: CronTrigger | DirectoryTrigger | HubTrigger) -> str:
    """When: `30 2 * * * Europe/Berlin`."""
    if isinstance(trigger, CronTrigger):
        return f"{trigger.expression} {trigger.time_zone}"
    if isinstance(trigger, DirectoryTrigger):
        return f"a new model {trigger.pattern}"
    return f"a new {trigger.repository}@{trigger.revision}"


def action_text(action: JobAction | ExperimentAction | SuiteAction) -> str:
    """What: `sft job warm-up`."""
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
