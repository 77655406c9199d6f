"""A matrix of experiments: job templates over axes become plain jobs, before anything is validated.

    seeds = [0, 1]                          # of every job that states none

    [axes]
    beta = [0.1, 1.0]
    method = [{ name = "kld", loss = "lco-kld" }, { name = "ppo", loss = "ppo" }]

    [[jobs]]
    each = ["method", "beta"]               # one job for every combination
    name = "{method.name}-{beta}"
    config = { algorithm = { name = "{method.loss}", ... } }

A string that is one placeholder becomes the value itself, whatever its type; inside a longer string it becomes text.
`{{` and `}}` stand for braces. `exclude` lists combinations to leave out. A job without `each` is made once: a stage
that all combinations share. Placeholders are replaced in templates with `each` alone, so that plain jobs stay as they
are. A `search` adds the axis `trial` with the values that it tries (`store.search_spec`).
"""

import copy
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from store.errors import Invalid
from store.search_spec import AXIS, SearchSpec, trials_of

MAX_JOBS = 1000
_AXIS = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{(?P<path>[a-z][a-z0-9_.-]*)\}", re.ASCII)
_KEYS = ("axes", "exclude", "seeds")
_COMPETITORS = ("train", "sft", "dpo")
"""Kinds of jobs that report metrics which a search can go by."""

Point = Mapping[str, Any]
"""Axis -> one of its values."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """A document with plain jobs."""

    document: dict[str, Any]
    origins: list[int]
    """For each job the number of the template that it was made of, from 0."""
    points: list[Point]
    """For each job the values of its template's axes, in the order of its `each`; empty for a job made once."""


def is_matrix(document: Any) -> bool:
    """Whether a document has anything to expand."""
    if not isinstance(document, dict):
        return False
    jobs = document.get("jobs")
    has_each = isinstance(jobs, list) and any(isinstance(job, dict) and "each" in job for job in jobs)
    return has_each or any(key in document for key in (*_KEYS, "search"))


def expand(document: Mapping[str, Any]) -> Expanded:
    """The document with every template's jobs in its place, in the order of the axes' values.

    Raises:
        Invalid: an axis, a combination or a placeholder is wrong; names its place in the document.
    """
    axes = _axes(document.get("axes", {}))
    search = _search(document.get("search"))
    if search is not None:
        if AXIS in axes:
            raise Invalid(f"/axes/{AXIS}", "the search makes this axis")
        try:
            axes = {**axes, AXIS: trials_of(search)}
        except ValueError as error:
            raise Invalid("/search/space", str(error)) from None
    excluded = _excluded(document.get("exclude", []), axes)
    jobs = document.get("jobs")
    if not isinstance(jobs, list):
        raise Invalid("/jobs", "this is a list of jobs")
    made: list[Any] = []
    origins: list[int] = []
    at: list[Point] = []
    used: set[str] = set()
    for position, template in enumerate(jobs):
        here = f"/jobs/{position}"
        names = _each(template, axes, here)
        used.update(names)
        for point in _points(names, axes, excluded):
            made.append(_job(template, point, document, here))
            origins.append(position)
            at.append(point)
            if len(made) > MAX_JOBS:
                raise Invalid(here, f"the matrix has more than {MAX_JOBS} jobs")
    if unused := sorted(axes.keys() - used):
        here = "/search/space" if unused[0] == AXIS else f"/axes/{unused[0]}"
        raise Invalid(here, f"no job names this axis in its `each`: {unused[0]}")
    rest = {key: value for key, value in document.items() if key not in (*_KEYS, "jobs")}
    if search is not None:
        template = _competing(search, jobs)
        members = [
            _member(search, job, point)
            for job, point, origin in zip(made, at, origins, strict=True)
            if origin == template
        ]
        rest["search"] = {**document["search"], "members": members}
    return Expanded({**rest, "jobs": made}, origins, at)


def _search(document: Any) -> SearchSpec | None:
    if document is None:
        return None
    if isinstance(document, dict) and "members" in document:
        raise Invalid("/search/members", "the expansion writes these")
    try:
        return SearchSpec.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"/{part}" for part in first["loc"][: 2 if first["loc"][:1] == ("space",) else 3])
        raise Invalid(f"/search{place}", first["msg"].removeprefix("Value error, ")) from None


def _competing(search: SearchSpec, jobs: list[Any]) -> int:
    """The number of the template whose jobs compete."""
    over = [
        position
        for position, job in enumerate(jobs)
        if isinstance(job, dict) and AXIS in job.get("each", []) and job.get("kind") in _COMPETITORS
    ]
    if search.job is not None:
        over = [position for position in over if jobs[position].get("name") == search.job]
        if not over:
            raise Invalid("/search/job", f"no template of this name trains over the axis {AXIS}")
    if len(over) != 1:
        raise Invalid("/search/job", f"{len(over)} templates train over the axis {AXIS}: name one")
    axis = search.equal_budget_over
    if axis is not None and axis not in jobs[over[0]]["each"]:
        raise Invalid("/search/equal_budget_over", "the jobs that compete are not over this axis")
    return over[0]


def _member(search: SearchSpec, job: Any, point: Point) -> dict[str, Any]:
    trial = point[AXIS]
    arm = ""
    if search.equal_budget_over is not None:
        value = point[search.equal_budget_over]
        arm = str(value["name"]) if isinstance(value, dict) and "name" in value else value
        arm = (arm if isinstance(arm, str) else json.dumps(arm))[:128]
    parameters = {name: value for name, value in trial.items() if name != "name"}
    return {"job": str(job.get("name", "")), "trial": trial["name"], "arm": arm, "parameters": parameters}


def _axes(axes: Any) -> dict[str, list[Any]]:
    if not isinstance(axes, dict):
        raise Invalid("/axes", "this maps names of axes to lists of values")
    for name, values in axes.items():
        here = f"/axes/{name}"
        if _AXIS.fullmatch(name) is None:
            raise Invalid("/axes", "the name of an axis is lower-case letters, digits, `-` and `_`")
        if not isinstance(values, list) or not values:
            raise Invalid(here, "this is a list of at least one value")
        if len({_canonical(value) for value in values}) != len(values):
            raise Invalid(here, "a value stands twice")
    return axes


def _excluded(entries: Any, axes: Mapping[str, list[Any]]) -> list[dict[str, set[str]]]:
    """For each entry, axis -> canonical values. A value of an axis of tables may be named by its `name`."""
    if not isinstance(entries, list):
        raise Invalid("/exclude", "this is a list of combinations")
    found = []
    for position, entry in enumerate(entries):
        here = f"/exclude/{position}"
        if not isinstance(entry, dict) or not entry:
            raise Invalid(here, "this maps axes to values")
        combination = {}
        for axis, value in entry.items():
            if axis not in axes:
                raise Invalid(f"{here}/{axis}", "there is no such axis")
            named = [v for v in axes[axis] if v == value or (isinstance(v, dict) and v.get("name") == value)]
            if not named:
                raise Invalid(f"{here}/{axis}", "the axis has no such value")
            combination[axis] = {_canonical(v) for v in named}
        found.append(combination)
    return found


def _each(template: Any, axes: Mapping[str, list[Any]], here: str) -> list[str]:
    each = template.get("each", []) if isinstance(template, dict) else []
    if not isinstance(each, list) or not all(isinstance(name, str) for name in each):
        raise Invalid(f"{here}/each", "this is a list of names of axes")
    for position, name in enumerate(each):
        if name not in axes:
            raise Invalid(f"{here}/each/{position}", "there is no such axis")
    if len(set(each)) != len(each):
        raise Invalid(f"{here}/each", "an axis stands twice")
    return each


def _points(
    names: Sequence[str], axes: Mapping[str, list[Any]], excluded: Sequence[dict[str, set[str]]]
) -> list[Point]:
    """The combinations of some axes. One is left out where an entry of `exclude` says so by these axes alone."""
    points: list[Point] = []
    for values in itertools.product(*(axes[name] for name in names)):
        point = dict(zip(names, values, strict=True))
        is_out = any(
            entry.keys() <= point.keys() and all(_canonical(point[axis]) in wanted for axis, wanted in entry.items())
            for entry in excluded
        )
        if not is_out:
            points.append(point)
    return points


def _job(template: Any, point: Point, document: Mapping[str, Any], here: str) -> Any:
    if not isinstance(template, dict):
        return template
    plain = {key: value for key, value in template.items() if key != "each"}
    job = _filled(plain, point, here) if "each" in template else copy.deepcopy(plain)
    if "seeds" in document and "seeds" not in job:
        job["seeds"] = copy.deepcopy(document["seeds"])
    return job


def _filled(value: Any, point: Point, here: str) -> Any:
    """The value with every placeholder replaced."""
    if isinstance(value, dict):
        return {key: _filled(item, point, f"{here}/{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, point, f"{here}/{position}") for position, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole is not None and whole["path"]:
        return copy.deepcopy(_value(whole["path"], point, here))

    def text(match: re.Match[str]) -> str:
        if match["path"] is None:
            return match[0][0]
        found = _value(match["path"], point, here)
        if isinstance(found, dict | list):
            raise Invalid(here, f"{{{match['path']}}} is no text; a placeholder for a table stands alone")
        return found if isinstance(found, str) else json.dumps(found)

    return _PLACEHOLDER.sub(text, value)


def _value(path: str, point: Point, here: str) -> Any:
    axis, *fields = path.split(".")
    if axis not in point:
        raise Invalid(here, f"{{{path}}}: the job's `each` names no axis {axis!r}")
    value = point[axis]
    for field in fields:
        if not isinstance(value, dict) or field not in value:
            raise Invalid(here, f"{{{path}}}: a value of the axis {axis!r} has no field {field!r}")
        value = value[field]
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
