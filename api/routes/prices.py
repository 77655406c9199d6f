"""What an experiment costs before it is submitted."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from api.auth import requires
from api.bodies import ExperimentBody
from api.conditional import object_response
from api.price_schemas import PriceRead
from api.price_views import priced
from store.pricing import DEVICES

router = APIRouter(prefix="/v1/experiments", tags=["experiments"])


@router.post("/price", operation_id="experiments.price", response_model=PriceRead)
@requires("read")
def price_experiment(
    request: Request,
    submitted: Annotated[Any, Depends(ExperimentBody())],
    device: Annotated[
        str, Query(pattern=f"^({'|'.join(DEVICES)})$", description="The device that hours and memory are told of.")
    ] = "h100",
) -> Response:
    """Prices a document: memory, operations, device hours, what judges cost. Its inputs need not be there yet."""
    return object_response(request, priced(submitted, device))
