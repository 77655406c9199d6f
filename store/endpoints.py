"""Which servers a job's evaluation may ask, and with which keys: what the operator lists in `LCO_ENDPOINTS`.

A submitter names a server and a variable; only the operator says which of them belong together. So no job can send a
key to a server of its own, nor reach into the network that the workers stand in.
"""

from collections.abc import Iterator

from lco.config import Config
from lco.endpoint_config import AzureEndpoint, OpenAiEndpoint
from store.errors import Invalid
from store.settings import Settings


def endpoints(config: Config, pointer: str = "/config") -> Iterator[tuple[str, OpenAiEndpoint | AzureEndpoint]]:
    """Every endpoint of a config with its JSON pointer."""
    if isinstance(config, OpenAiEndpoint | AzureEndpoint):
        yield pointer, config
        return
    for name in type(config).model_fields:
        value = getattr(config, name)
        for place, item in enumerate(value) if isinstance(value, list | tuple) else [(None, value)]:
            if isinstance(item, Config):
                yield from endpoints(item, f"{pointer}/{name}" + ("" if place is None else f"/{place}"))


def check_endpoints(settings: Settings, config: Config, pointer: str) -> None:
    """Refuses a server that is not listed, and a key for a server that it does not belong to.

    Raises:
        Invalid: names the field.
    """
    for here, endpoint in endpoints(config, pointer):
        allowed = settings.endpoint_keys.get(endpoint.origin)
        if allowed is None:
            field = "base_url" if isinstance(endpoint, OpenAiEndpoint) else "endpoint_url"
            raise Invalid(
                f"{here}/{field}", "is no server that this platform may ask; its operator lists them in LCO_ENDPOINTS"
            )
        if endpoint.api_key_variable and endpoint.api_key_variable not in allowed:
            raise Invalid(f"{here}/api_key_variable", "holds no key for this server, by what LCO_ENDPOINTS lists")


def key_variables(settings: Settings, config: Config) -> tuple[str, ...]:
    """Variables of the worker's environment that a run may have: those its endpoints name and are listed with."""
    names = {
        endpoint.api_key_variable
        for _, endpoint in endpoints(config)
        if endpoint.api_key_variable in settings.endpoint_keys.get(endpoint.origin, ())
    }
    return tuple(sorted(names))
