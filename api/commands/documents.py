"""Jobs and experiments in files."""

import json
import tomllib
from pathlib import Path
from typing import Any

from api.commands.usage import UsageError


def read_document(path: Path) -> dict[str, Any]:
    """A job or an experiment in a file.

    Raises:
        UsageError: the file cannot be read, or holds no document.
    """
    try:
        content = path.read_text()
        document = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
        json.dumps(document, allow_nan=False)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8") from None
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    except (TypeError, ValueError):
        raise UsageError(f"{path} holds a date or a number that is not finite") from None
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no job and no experiment")
    return document
