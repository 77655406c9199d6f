"""Rewards: the kinds there are, and one tried on a few completions. Nothing is sent anywhere."""

from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Request, Response

from api import schemas
from api.auth import requires
from api.bodies import Body
from api.conditional import object_response
from api.dependencies import SettingsDep
from api.failures import may_fail
from api.pagination import make_page, page_response
from api.reward_schemas import RewardCheckRead, RewardCheckRequest, RewardedSample, RewardKindRead
from lco.reward_config import RemoteReward, Reward, parts_of
from store.endpoints import check_endpoints
from store.reward_trials import Trial, check_functions, tried

router = APIRouter(prefix="/v1/rewards", tags=["rewards"])


@router.get("", operation_id="rewards.list", response_model=schemas.Page[RewardKindRead])
@requires("read")
def list_rewards(request: Request, settings: SettingsDep) -> Response:
    """The kinds of reward, and the functions that the operator declared; all on one page."""
    data = []
    for member in get_args(get_args(Reward)[0]):
        kind = get_args(member)[0]
        name = kind.model_fields["name"].default
        data.append(
            RewardKindRead(
                name=name,
                description=" ".join((kind.__doc__ or "").split()),
                is_remote=issubclass(kind, RemoteReward),
                functions=sorted(settings.declared_rewards) if name == "python" else [],
            )
        )
    return page_response(request, make_page(data, False, [item.name for item in data]))


@router.post("/check", operation_id="rewards.check", response_model=RewardCheckRead)
@may_fail("invalid")
@requires("write")
def check(
    request: Request, asked: Annotated[Any, Depends(Body(RewardCheckRequest, toml=True))], settings: SettingsDep
) -> Response:
    """Tries a reward: its rules here and now; what a judge, a server or a function computes is told apart."""
    check_endpoints(settings, asked.reward, "/reward")
    check_functions(settings, asked.reward, "/reward")
    trials = [Trial(one.prompt, one.completion, one.reference) for one in asked.samples]
    rows = tried(asked.reward, trials) if trials else []
    found = RewardCheckRead(
        name=asked.reward.name,
        is_remote=any(isinstance(part, RemoteReward) for part in parts_of(asked.reward)),
        rows=[
            RewardedSample(
                prompt=one.prompt,
                completion=one.completion,
                reference=one.reference,
                reward=graded.reward,
                is_correct=graded.is_correct,
                is_timed_out=graded.is_timed_out,
                parts=dict(graded.parts),
                reason=graded.reason,
            )
            for one, graded in zip(trials, rows, strict=True)
        ],
    )
    return object_response(request, found)
