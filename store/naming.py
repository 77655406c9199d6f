"""Names in a spec, made fast at submission: `dataset:NAME` and `alias:NAME`, which mean the newest of something, and
`model:NAME` where it is registered: its checkpoint, or the job that fetches it.
"""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.confinement import project_of
from store.errors import Invalid
from store.ids import encode_id
from store.models.dataset import Alias, Dataset
from store.repositories.models import Models
from store.sources import document_of, spec_of
from store.specs import JobSpec, Reference, references, replaced
from store.uploads import FOLDER


def settled(session: Session, spec: JobSpec, pointer: str = "") -> JobSpec:
    """The spec with a version behind every data set and a checkpoint in place of every alias and registered model.

    Raises:
        Invalid: there is no such data set, version or alias, or a model could not be fetched; names the place below
            `pointer`.
    """
    found = {}
    for reference in references(spec.config):
        if reference.scheme == "model" and (weights := _model(session, reference, pointer)) is not None:
            found[reference.pointer] = weights
        if reference.scheme in ("dataset", "alias"):
            text = _dataset(session, reference) if reference.scheme == "dataset" else _checkpoint(session, reference)
            if text is None:
                what = "data set" if reference.scheme == "dataset" else "alias"
                here = f"{pointer}/config/{'/'.join(reference.pointer)}"
                raise Invalid(here, f"there is no {what} {reference.value!r}")
            found[reference.pointer] = text
    if not found:
        return spec
    document = document_of(spec)
    for place, text in found.items():
        replaced(document["config"], place, text)
    return spec_of(document)


def dataset_version(session: Session, value: str) -> Dataset | None:
    """The data set that `NAME` or `NAME@VERSION` means now in the session's project; None where there is none."""
    name, _, version = value.partition("@")
    is_named = (Dataset.project_id == project_of(session), Dataset.name == name)
    query = select(Dataset).where(*is_named).order_by(Dataset.version.desc()).limit(1)
    return session.scalar(query.where(Dataset.version == int(version)) if version else query)


def check_data(session: Session, path: str) -> None:
    """Refuses a file below the data root that is an uploaded data set of other projects alone.

    Raises:
        ValueError: in the words that are used for a file which does not exist.
    """
    if not path.startswith(f"{FOLDER}/"):
        return
    is_own = (Dataset.project_id == project_of(session), Dataset.path == path)
    if session.scalar(select(Dataset.id).where(*is_own).limit(1)) is None:
        raise ValueError(f"there is no data file {path!r} below the data root")


def _dataset(session: Session, reference: Reference) -> str | None:
    dataset = dataset_version(session, reference.value)
    return None if dataset is None else f"dataset:{dataset.name}@{dataset.version}"


def _model(session: Session, reference: Reference, pointer: str) -> str | None:
    """What a registered model is taken from; None for a directory that nobody registered."""
    model = Models(session).named(reference.value)
    if model is None:
        return None
    found = Models(session).states([model])[model.id]
    if found.checkpoint is not None:
        return encode_id("ckpt", found.checkpoint.id)
    if found.state == "failed" or model.job_id is None:
        here = f"{pointer}/config/{'/'.join(reference.pointer)}"
        raise Invalid(here, f"the model {reference.value} could not be fetched: remove it and register it again")
    return encode_id("job", model.job_id)


def _checkpoint(session: Session, reference: Reference) -> str | None:
    is_named = (Alias.project_id == project_of(session), Alias.name == reference.value)
    identifier = session.scalar(select(Alias.checkpoint_id).where(*is_named))
    return None if identifier is None else encode_id("ckpt", identifier)
