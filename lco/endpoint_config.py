"""Configuration of an endpoint that answers chat completions: OpenAI, Azure OpenAI or a compatible server. No torch.

A secret is never in a configuration: `api_key_variable` names the environment variable that holds it. The platform
accepts only the endpoints that its operator lists, each with the one variable that may go there (`LCO_ENDPOINTS`).
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from lco.config import Config

VARIABLE_PATTERN = r"^[A-Z][A-Z0-9_]{0,127}$"
_NOT_A_KEY = re.compile(r"LCO_.*|LC_.*|LD_.*|PATH|HOME|PYTHON.*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL: `https://api.openai.com:443`. A key belongs to one origin.

    Raises:
        ValueError: not http or https, no host, or a user, query or fragment in it. The message does not repeat the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not url.isascii() or re.search(r"[\s\\]", url):
        raise ValueError("must be an http:// or https:// URL")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("must not hold a user, a password, a query or a fragment")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host.lower()}:{port or _DEFAULT_PORTS[parts.scheme]}"


def key_variable(name: str) -> str:
    """The name of an environment variable that may hold a key.

    Raises:
        ValueError: it is none, or one that the platform or the system uses for something else.
    """
    if not re.fullmatch(VARIABLE_PATTERN, name) or _NOT_A_KEY.fullmatch(name):
        raise ValueError("must be the name of an environment variable that holds a key, such as OPENAI_API_KEY")
    return name


def _checked_url(url: str) -> str:
    origin_of(url)
    return url.rstrip("/")


Url = Annotated[str, Field(max_length=512), AfterValidator(_checked_url)]
KeyVariable = Annotated[str, AfterValidator(lambda name: key_variable(name) if name else name)]
_Segment = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@dataclass(frozen=True, slots=True)
class Operational:
    """Marks a field that says how patiently, how fast or for how much a server is asked: it decides no number."""


_OPERATIONAL = Operational()


class Prices(Config):
    """What tokens cost, in one currency."""

    input_per_million: NonNegativeFloat = 0.0
    """Price of a million prompt tokens."""
    output_per_million: NonNegativeFloat = 0.0
    """Price of a million completion tokens."""

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million) / 1e6


class _Endpoint(Config):
    """What every endpoint has: identity, key, limits, retries, spending."""

    max_concurrency: Annotated[int, Field(ge=1, le=256), _OPERATIONAL] = 8
    """Requests in flight at a time."""
    requests_per_minute: Annotated[NonNegativeInt, _OPERATIONAL] = 0
    """Rate that is never exceeded; 0 for no limit of ours."""
    tokens_per_minute: Annotated[NonNegativeInt, _OPERATIONAL] = 0
    """Prompt and completion tokens a minute, estimated before a call and corrected after it; 0 for no limit of ours."""
    max_attempts: Annotated[int, Field(ge=1, le=50), _OPERATIONAL] = 8
    """Tries of one call before it fails."""
    max_seconds: Annotated[PositiveFloat, _OPERATIONAL] = 600.0
    """Time that one call may take with all its tries and waits."""
    timeout_seconds: Annotated[PositiveFloat, _OPERATIONAL] = 120.0
    """Time of one try, from connecting to the last byte of the reply, however slowly it drips."""
    backoff_seconds: Annotated[PositiveFloat, _OPERATIONAL] = 1.0
    """The wait before try n+1 is uniform in [0, backoff_seconds * 2^n], or what the server's Retry-After says."""
    max_backoff_seconds: Annotated[PositiveFloat, _OPERATIONAL] = 60.0
    """Longest wait of our own between two tries."""
    max_response_bytes: Annotated[int, Field(ge=1024, le=1 << 26), _OPERATIONAL] = 1 << 22
    """A reply longer than this is a failed try."""
    breaker_failures: Annotated[int, Field(ge=1, le=100), _OPERATIONAL] = 8
    """Tries that fail in a row (no connection, timeout, 5xx, an unreadable reply) before the circuit opens."""
    breaker_seconds: Annotated[PositiveFloat, _OPERATIONAL] = 10.0
    """Time until a single call probes an open circuit; it doubles after each probe that fails."""
    breaker_probes: Annotated[int, Field(ge=1, le=20), _OPERATIONAL] = 5
    """Probes in a row that may fail before the endpoint is given up and the run ends."""
    prices: Annotated[Prices, _OPERATIONAL] = Prices()
    """What the endpoint charges; 0 for a server of one's own."""
    spending_cap: Annotated[NonNegativeFloat, _OPERATIONAL] = 0.0
    """What one run may spend, in the prices' currency; checked before it starts and before every call. 0 for no cap."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the limit of a completion; newer models know only the second."""

    @model_validator(mode="after")
    def _a_cap_has_prices(self) -> "_Endpoint":
        if self.spending_cap and not (self.prices.input_per_million or self.prices.output_per_million):
            raise ValueError("spending_cap: a cap needs `prices`")
        return self


class OpenAiEndpoint(_Endpoint):
    """OpenAI, or any server that speaks its chat completions: vLLM, llama.cpp, SGLang."""

    api: Literal["openai"] = "openai"
    base_url: Url = "https://api.openai.com/v1"
    """Address up to and with `/v1`. Plain http goes to loopback and private addresses only."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the model there."""
    api_key_variable: Annotated[KeyVariable, _OPERATIONAL] = ""
    """Environment variable that holds the key; empty sends none."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return origin_of(self.base_url)

    def identity(self) -> dict[str, Any]:
        """What names the answering model: part of every cache key."""
        return {"api": self.api, "base_url": self.base_url, "model": self.model}


class AzureEndpoint(_Endpoint):
    """A deployment of Azure OpenAI."""

    api: Literal["azure"] = "azure"
    endpoint_url: Url
    """Address of the resource: `https://RESOURCE.openai.azure.com`."""
    deployment: _Segment
    """Name of the deployment."""
    api_version: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")] = "2024-10-21"
    """Version of the API."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """Model behind the deployment, such as `gpt-4o-2024-11-20`: Azure does not say it, results record it."""
    api_key_variable: Annotated[KeyVariable, _OPERATIONAL] = "AZURE_OPENAI_API_KEY"
    """Environment variable that holds the key."""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return origin_of(self.endpoint_url)

    def identity(self) -> dict[str, Any]:
        """What names the answering model: part of every cache key."""
        return {
            "api": self.api,
            "endpoint_url": self.endpoint_url,
            "deployment": self.deployment,
            "api_version": self.api_version,
            "model": self.model,
        }


EndpointConfig = Annotated[OpenAiEndpoint | AzureEndpoint, Field(discriminator="api")]
"""Any endpoint; `api` tells them apart."""
