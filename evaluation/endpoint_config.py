"""The configuration of endpoints, which rewards have too: it is in `lco.endpoint_config`. No torch."""

from lco.endpoint_config import (
    VARIABLE_PATTERN,
    AzureEndpoint,
    EndpointConfig,
    OpenAiEndpoint,
    Operational,
    Prices,
    key_variable,
    origin_of,
)

__all__ = [
    "VARIABLE_PATTERN",
    "AzureEndpoint",
    "EndpointConfig",
    "OpenAiEndpoint",
    "Operational",
    "Prices",
    "key_variable",
    "origin_of",
]
