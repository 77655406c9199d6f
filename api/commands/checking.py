"""`lco check`: what a document would make, before it is submitted."""

import json
from argparse import Namespace
from pathlib import Path

from api.client import Client
from api.commands.documents import read_document
from api.commands.tables import print_json, print_table


def check(options: Namespace) -> int:
    """Checks an experiment, or a patch for a changed copy of one; submits nothing."""
    document = read_document(Path(options.file))
    with Client() as client:
        found = client.check_clone(options.of, document) if options.of else client.check_experiment(document)
    if options.json:
        return print_json(found)
    if found.changes:
        rows = [[change.pointer, json.dumps(change.before), json.dumps(change.after)] for change in found.changes]
        print_table(["place", "before", "after"], rows)
        print()
    jobs = [[job.name, job.kind, ", ".join(job.needs), len(job.seeds), job.num_reused] for job in found.jobs]
    print_table(["job", "kind", "waits for", "runs", "reused"], jobs)
    print(f"{found.num_jobs} jobs, {found.num_runs} runs, {found.num_reused} of them reused; nothing was submitted")
    return 0
