import pytest

from store.ids import new_id
from store.models.project import Project


@pytest.fixture
def other(database):
    """A second project's id."""
    project = Project(id=new_id(), name="other")
    with database.write() as session:
        session.add(project)
    return project.id


@pytest.fixture
def theirs(make_key, other):
    """Headers with an admin key of the second project."""
    return {"Authorization": f"Bearer {make_key(project_id=other)}"}


def test_a_job_of_another_project_is_unknown_and_in_no_list(http, theirs, job):
    mine = http.post("/v1/jobs", json=job).json()["id"]
    assert http.get(f"/v1/jobs/{mine}", headers=theirs).status_code == 404
    assert http.post(f"/v1/jobs/{mine}/cancel", headers=theirs).status_code == 404
    assert http.get("/v1/jobs", headers=theirs).json()["data"] == []
    assert http.get(f"/v1/jobs/{mine}").status_code == 200


def test_a_submitted_job_belongs_to_the_keys_project(http, theirs, job):
    foreign = http.post("/v1/jobs", json=job, headers=theirs).json()["id"]
    assert http.get(f"/v1/jobs/{foreign}", headers=theirs).status_code == 200
    assert http.get(f"/v1/jobs/{foreign}").status_code == 404
