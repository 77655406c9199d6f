import json
from pathlib import Path

import pytest

from evaluation.records import content_key
from lco.manifest import Manifest, read_manifest, write_manifest
from store.settings import Settings
from worker.kinds import collect_results

DOCUMENT = {"benchmark": "sums", "version": 1, "temperature": 0.6}
ROW = {
    "benchmark": "sums", "metric": "pass@1", "decoding": "t0.6-p0.95", "eval_seed": 0, "value": 0.5, "num_examples": 2,
    "num_unscored": 0, "stderr_over_examples": 0.25, "configuration": content_key(**DOCUMENT),
}  # fmt: skip


def finished(directory: Path, **results: object) -> Manifest:
    (directory / "completions.jsonl").write_text("")
    (directory / "results.json").write_text(json.dumps(results))
    outputs = {"results": "results.json", "completions": "completions.jsonl"}
    write_manifest(directory, step=1, outputs=outputs, include=list(outputs.values()))
    return read_manifest(directory)


def test_an_evaluation_tells_its_errors_and_what_it_measured(tmp_path: Path) -> None:
    manifest = finished(tmp_path, rows=[ROW], configurations={ROW["configuration"]: DOCUMENT})
    collected = collect_results(Settings(), manifest)
    (row,) = collected.results
    assert (row.value, row.stderr_over_examples, row.configuration) == (0.5, 0.25, content_key(**DOCUMENT))
    assert collected.configurations == {content_key(**DOCUMENT): DOCUMENT}


def test_a_configuration_that_is_missing_or_not_its_hash_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the results name no configuration"):
        collect_results(Settings(), finished(tmp_path, rows=[ROW], configurations={}))
    with pytest.raises(ValueError, match="is not the hash of what it says"):
        changed = {ROW["configuration"]: DOCUMENT | {"temperature": 1.0}}
        collect_results(Settings(), finished(tmp_path, rows=[ROW], configurations=changed))
