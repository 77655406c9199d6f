"""Several processes on one stage (torchrun): who takes what, what all of them know, how their gradients become one.

In a stage that runs alone every function here is the identity. Work is dealt out like cards, item i to process
i mod `count()`, and what comes of it is gathered in the order of the items: results do not depend on the number of
processes beyond the last bits of a sum. Gradients are summed, never averaged: a loss is weighted for the whole step.

Process group and device are accelerate's (`PartialState`), which goes on with one process where something is amiss: so
world size and wrapper are checked.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from lco.config import StageConfig

T = TypeVar("T")
Parallel = Literal["ddp", "fsdp2"]

_PATIENCE = timedelta(hours=2)
"""For a process that samples longer completions than the others. That one has died is noticed by torchrun."""


def join(config: StageConfig) -> None:
    """Makes this process one of those that torchrun started for the stage, if there are several; sets the threads.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    torch.set_num_threads(config.threads)
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if expected == 1:
        return
    is_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if not is_cpu and torch.cuda.device_count() < int(os.environ["LOCAL_WORLD_SIZE"]):
        raise ValueError(f"device: {torch.cuda.device_count()} GPUs for {os.environ['LOCAL_WORLD_SIZE']} processes")
    from accelerate import PartialState

    state = PartialState(cpu=is_cpu, timeout=_PATIENCE)
    found = (state.num_processes, state.backend, count())
    assert found == (expected, "gloo" if is_cpu else "nccl", expected), f"{expected} processes became {found}"
    torch.set_num_threads(config.threads)  # accelerate has its own idea
    atexit.register(leave)


def leave() -> None:
    """Ends the process group, where there is one."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def count() -> int:
    """Processes of the stage."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 alone writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def wait() -> None:
    """Returns when all processes have come here."""
    if count() > 1:
        distributed.barrier()


def share(items: Sequence[T]) -> list[T]:
    """This process's items, every `count()`-th: long and short ones are spread evenly where items are sorted."""
    return list(items[rank() :: count()])


def cut(items: list[T], size: int) -> list[list[T]]:
    """The items in pieces of at most a size, and of less where a process would get no piece otherwise."""
    size = min(size, -(-len(items) // count()))
    return [items[start : start + size] for start in range(0, len(items), size)]


def rounds(items: Sequence[T]) -> list[tuple[T, bool]]:
    """This process's share as the same number of rounds for every process, for work that all must do together.

    Returns:
        Item and True; where this process has nothing left to do, the first item and False.
    """
    mine = [(item, True) for item in share(items)]
    num_rounds = -(-len(items) // count())
    return mine + [(items[0], False)] * (num_rounds - len(mine))


def gather(mine: list[T]) -> list[T]:
    """The results of all processes in the order of the items that `share` dealt out; tensors come to this device."""
    if count() == 1:
        return mine
    hands: list[Any] = [None] * count()
    distributed.all_gather_object(hands, _moved(mine, torch.device("cpu")))
    device = _device()
    return [_moved(hands[position % count()][position // count()], device) for position in range(sum(map(len, hands)))]


def told_by_first(items: list[T]) -> list[T]:
    """The first process's items, in every process."""
    if count() == 1:
        return items
    hands: list[Any] = [_moved(items, torch.device("cpu"))]
    distributed.broadcast_object_list(hands, src=0)
    found: list[T] = _moved(hands[0], _device())
    return found


def any_of(flag: bool) -> bool:
    """Whether any process says so: a decision that all must take alike."""
    if count() == 1:
        return flag
    flags = torch.tensor([float(flag)], device=_device())
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags.item())


def summed(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Named numbers added up over the processes, which must all know the same names; float64."""
    if not values:
        return {}
    total = torch.stack([value.detach().double() for value in values.values()])
    if count() > 1:
        distributed.all_reduce(total)
    return dict(zip(values, total, strict=True))


def whole(tensor: Tensor) -> Tensor:
    """A parameter, gradient or optimizer state in one piece; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The model's state with every tensor in one piece; tied ones stay one tensor. Every process must ask."""
    identities = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
    pieces: dict[int | str, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        identity = identities.get(name, name)
        if identity not in pieces:
            pieces[identity] = whole(tensor)
        state[name] = pieces[identity]
    return state


def held_like(tensor: Tensor, example: Tensor) -> Tensor:
    """A tensor in one piece, held the way another of its shape is: as a shard of a process, or whole."""
    if not isinstance(example, DTensor):
        return tensor
    return distribute_tensor(tensor.to(example.device), example.device_mesh, example.placements, src_data_rank=None)


class Replica:
    """A model in training, copied to every process (DDP) or sharded over them (FSDP2)."""

    def __init__(self, model: nn.Module, parallel: Parallel = "ddp") -> None:
        """Wraps the model. FSDP2 shards its parameters in place: optimizers are made afterwards.

        Args:
            parallel: read where there are several processes.
        """
        body = _Body(model)
        self._wrapped: nn.Module = body
        self._shards: list[FSDPModule] = []
        if count() == 1:
            return
        if parallel == "ddp":
            self._wrapped = DistributedDataParallel(body, gradient_as_bucket_view=True)
            return
        blocks = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        mesh = init_device_mesh(_device().type, (count(),))  # by default it would be of GPUs wherever there are some
        for block in [part for part in model.modules() if type(part).__name__ in blocks]:
            fully_shard(block, mesh=mesh)
        fully_shard(body, mesh=mesh)
        with torch.no_grad():
            body(lambda: None)  # whoever runs first is the root, also where the model's parts are called alone later
        self._shards = [part for part in body.modules() if isinstance(part, FSDPModule)]
        for shard in self._shards:
            shard.reshard()
        held = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
        assert not held, f"{len(held)} parameters are not sharded, {held[0]} among them"

    def backward(self, make_loss: Callable[[], Tensor], *, is_last: bool) -> Tensor:
        """Makes one micro-batch's loss of the model and adds its gradients to the step's; gives the loss.

        All processes call it equally often; after the last call of a step every process has the gradient of the sum.
        """
        if isinstance(self._wrapped, DistributedDataParallel) and not is_last:
            waiting: AbstractContextManager[Any] = self._wrapped.no_sync()
        else:
            waiting = nullcontext()
        with waiting:
            loss: Tensor = self._wrapped(make_loss)
            (loss * count()).backward()  # both wrappers divide by the number of processes
        return loss.detach()

    @contextmanager
    def unsharded(self) -> Iterator[None]:
        """Every process holds all parameters meanwhile: it may call the model as often as it likes, without gradients.

        Sampling and scoring need it: processes do not call the model equally often.
        """
        for part in self._shards:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for position, part in enumerate(self._shards):
                part.reshard()
                part.set_reshard_after_forward(position > 0, recurse=False)


class _Body(nn.Module):
    """The model under a forward pass that is handed in, so that a wrapper sees whatever a loss does with the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        """What the function returns."""
        return function()


def _device() -> torch.device:
    is_cuda = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")


def _moved(value: Any, device: torch.device) -> Any:
    """The value with every tensor in it on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)([_moved(item, device) for item in value])
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value
