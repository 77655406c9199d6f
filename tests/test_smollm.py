"""The experiments with a real pretrained model, as far as they can be tested without it."""

import gzip
import json
import tomllib
from pathlib import Path

import pytest

from api import smollm
from lco.config import Gsm8k
from lco.importing import MODELS
from lco.prompts import load_prompts
from store.specs import ExperimentSpec, references

ROOT = Path(__file__).parents[1]
FORMS = [smollm.SHORT_FORM, smollm.LONG_FORM]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def experiment(form: Path) -> ExperimentSpec:
    return ExperimentSpec.model_validate_json(json.dumps(tomllib.loads(form.read_text())))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_experiment_has_every_kind_of_job_on_a_model_that_can_be_imported(form: Path) -> None:
    jobs = experiment(form).jobs
    assert {job.kind for job in jobs} == {"sft", "pairs", "dpo", "train", "evaluation"}
    models = {found.value for job in jobs for found in references(job.config) if found.scheme == "model"}
    assert models == {smollm.MODEL} and models <= MODELS.keys()


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_every_data_file_of_an_experiment_is_laid_out(form: Path, tmp_path: Path) -> None:
    smollm.lay_out_data(tmp_path, None)
    found = [found.value for job in experiment(form).jobs for found in references(job.config) if found.scheme == "data"]
    assert found and all((tmp_path / name).is_file() for name in found)


def test_short_form_is_two_prompts_one_step_and_eight_tokens() -> None:
    jobs = {job.name: job.config.model_dump() for job in experiment(smollm.SHORT_FORM).jobs}
    assert jobs["sft"]["steps"] == jobs["lco-kld"]["iterations"] == 1
    assert (
        jobs["lco-kld"]["prompts_per_iteration"] == jobs["evaluation"]["benchmarks"][0]["problems"]["num_problems"] == 2
    )
    assert jobs["pairs"]["sampling"]["max_tokens"] == jobs["lco-kld"]["sampling"]["max_tokens"] == 8


@pytest.mark.parametrize("split", ["train", "test"])
def test_invented_questions_have_the_form_of_the_data_set(split: str) -> None:
    prompts = load_prompts(Gsm8k(path=str(smollm.OWN_DATA / f"{split}.jsonl")))
    assert len(prompts) >= 2
    for prompt in prompts:
        assert prompt.reference.isdecimal()
        assert prompt.demonstration.endswith(f"\\boxed{{{prompt.reference}}}.") and "<<" not in prompt.demonstration


def test_questions_of_ones_own_are_unpacked(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "gsm8k_train.jsonl.gz").write_bytes(gzip.compress(b'{"question": "q", "answer": "#### 1"}\n'))
    (mine / "test.jsonl").write_bytes(b"other\n")
    smollm.lay_out_data(tmp_path / "data", mine)
    assert (tmp_path / "data/gsm8k/train.jsonl").read_bytes() == b'{"question": "q", "answer": "#### 1"}\n'
    assert (tmp_path / "data/gsm8k/test.jsonl").read_bytes() == b"other\n"


@pytest.mark.parametrize("content", [None, b"\x1f\x8b no gzip"])
def test_questions_that_cannot_be_read_end_the_command(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "train.jsonl.gz").write_bytes(content)
    assert smollm.main(["--gsm8k", str(tmp_path), "--data-dir", str(tmp_path / "var")]) == 1
    assert "smollm failed" in capsys.readouterr().err


def test_long_form_refuses_invented_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smollm.main(["--long", "--data-dir", str(tmp_path)]) == 1
    assert "--gsm8k" in capsys.readouterr().err
