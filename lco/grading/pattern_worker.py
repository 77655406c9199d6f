"""The process that matches regular expressions: killable, nothing of this project in it. Run by its path.

Reads JSON lines: first the pattern, then a text each; answers each with what the last match found, or null.
"""

import json
import re
import resource
import sys


def main() -> None:
    """Answers until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))
    settings = json.loads(sys.stdin.buffer.readline())
    pattern = re.compile(settings["pattern"])
    for line in sys.stdin.buffer:
        text = json.loads(line)
        found: re.Match[str] | None = None
        if settings["match"] == "full":
            found = pattern.fullmatch(text)
        else:
            for found in pattern.finditer(text):  # noqa: B007 - the last one counts
                if settings["group"] is None:
                    break
        answer = None
        if found is not None:
            answer = (found[settings["group"] or 0] or "")[:4096]
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
