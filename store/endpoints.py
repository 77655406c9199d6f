"""Which servers a job's evaluation or reward may ask, and with which keys: what the operator lists in `LCO_ENDPOINTS`.

A submitter names a server and a variable; only the operator says which of them belong together. So no job can send a
key to a server of its own, nor reach into the network that the workers stand in.
"""

from collections.abc import Iterator

from lco.config import Config
from lco.endpoint_config import AzureEndpoint, OpenAiEndpoint
from lco.reward_config import HttpReward, PythonReward
from store.errors import Invalid
from store.settings import Settings

DECLARED_REWARDS = "LCO_REWARDS"
Server = OpenAiEndpoint | AzureEndpoint | HttpReward
"""What names a server."""


def nested(config: Config, pointer: str = "/config") -> Iterator[tuple[str, Config]]:
    """A config and all configs in it, each with its JSON pointer."""
    yield pointer, config
    for name in type(config).model_fields:
        value = getattr(config, name)
        for place, item in enumerate(value) if isinstance(value, list | tuple) else [(None, value)]:
            if isinstance(item, Config):
                yield from nested(item, f"{pointer}/{name}" + ("" if place is None else f"/{place}"))


def endpoints(config: Config, pointer: str = "/config") -> Iterator[tuple[str, OpenAiEndpoint | AzureEndpoint]]:
    """Every endpoint for chat completions of a config with its JSON pointer: what may cost something."""
    for here, found in nested(config, pointer):
        if isinstance(found, OpenAiEndpoint | AzureEndpoint):
            yield here, found


def servers(config: Config, pointer: str = "/config") -> Iterator[tuple[str, Server]]:
    """Everything in a config that names a server, with its JSON pointer."""
    for here, found in nested(config, pointer):
        if isinstance(found, Server):
            yield here, found


def check_endpoints(settings: Settings, config: Config, pointer: str) -> None:
    """Refuses a server that is not listed, and a key for a server that it does not belong to.

    Raises:
        Invalid: names the field.
    """
    for here, endpoint in servers(config, pointer):
        allowed = settings.endpoint_keys.get(endpoint.origin)
        if allowed is None:
            field = _ADDRESSES[type(endpoint)]
            raise Invalid(
                f"{here}/{field}", "is no server that this platform may ask; its operator lists them in LCO_ENDPOINTS"
            )
        if endpoint.api_key_variable and endpoint.api_key_variable not in allowed:
            raise Invalid(f"{here}/api_key_variable", "holds no key for this server, by what LCO_ENDPOINTS lists")


_ADDRESSES: dict[type[Config], str] = {OpenAiEndpoint: "base_url", AzureEndpoint: "endpoint_url", HttpReward: "url"}


def key_variables(settings: Settings, config: Config) -> tuple[str, ...]:
    """Variables of the worker's environment that a run may have: those its endpoints name and are listed with, and the
    operator's declaration of functions where it is rewarded by one.
    """
    names = {
        endpoint.api_key_variable
        for _, endpoint in servers(config)
        if endpoint.api_key_variable in settings.endpoint_keys.get(endpoint.origin, ())
    }
    if any(isinstance(found, PythonReward) for _, found in nested(config)):
        names.add(DECLARED_REWARDS)
    return tuple(sorted(names))
