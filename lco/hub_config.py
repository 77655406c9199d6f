"""Configuration of an import: a model on a hub, at one commit. No torch."""

from typing import Annotated

from pydantic import Field, NonNegativeInt

from lco.config import Config

HUB_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
REVISION = r"^[0-9a-f]{40}$"

HubId = Annotated[str, Field(pattern=HUB_ID)]
Revision = Annotated[str, Field(pattern=REVISION)]


class ImportConfig(Config):
    """Fetch a model from the hub: safetensors, configuration and tokenizer alone, every byte of one commit."""

    seed: NonNegativeInt = 0
    """Draws nothing; a job sets it from its list of seeds."""
    hub_id: HubId
    """`OWNER/NAME` on the hub that the operator names."""
    revision: Revision
    """The commit: 40 hexadecimal digits. A branch or tag can move, and is refused."""
