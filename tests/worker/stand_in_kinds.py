"""The table of kinds with stand-in processes, and the local loop with it.

`python -m tests.worker.stand_in_kinds` is `python -m worker.local`.
"""

import sys
from dataclasses import replace

from store.settings import Settings
from worker.kinds import KINDS
from worker.local import serve

STAND_INS = {name: replace(kind, module="tests.worker.stand_in") for name, kind in KINDS.items()}

if __name__ == "__main__":
    sys.exit(serve(Settings.from_environment(), STAND_INS))
