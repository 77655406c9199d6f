"""Examples of bodies and answers, as the OpenAPI document shows them; a test holds them against the schemas."""

import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent

REQUESTS: dict[str, dict[str, Any]] = json.loads((_HERE / "requests.json").read_text())
"""Operation id -> name -> body; a text is TOML."""
ANSWERS: dict[str, dict[str, Any]] = json.loads((_HERE / "answers.json").read_text())
"""Name of a model -> what one looks like."""
