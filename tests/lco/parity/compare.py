"""Whether two files of frozen numbers agree to 1e-10, and the defaults beside them: `compare.py COMMITTED MADE`."""

import json
import math
import sys
from pathlib import Path


def main(committed: Path, made: Path) -> int:
    """The number of cases that differ, or stand in one file alone."""
    one, other = (json.loads(path.read_text()) for path in (committed, made))
    different = sorted(one.keys() ^ other.keys())
    for name in one.keys() & other.keys():
        pairs = zip(
            [one[name]["loss"], *one[name]["gradient"]], [other[name]["loss"], *other[name]["gradient"]], strict=True
        )
        if not all(math.isclose(a, b, rel_tol=1e-10, abs_tol=1e-10) for a, b in pairs):
            different.append(name)
    defaults = [path.with_stem(f"{path.stem}-defaults") for path in (committed, made)]
    if json.loads(defaults[0].read_text()) != json.loads(defaults[1].read_text()):
        different.append("defaults")
    print(f"{len(one)} cases; different: {', '.join(different) or 'none'}")
    return len(different)


if __name__ == "__main__":
    sys.exit(bool(main(Path(sys.argv[1]), Path(sys.argv[2]))))
