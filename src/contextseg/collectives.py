"""What the processes of one run do together; in a single process each of these gives back what it is given.

Every process must call the same ones in the same order.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from contextseg.errors import ContextsegError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # how long the others wait for what the first process does alone


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(items: Sequence[T]) -> Sequence[T]:
    """Return this process's part: one run of the items; the first processes have one more where it is uneven."""
    per_process, more = divmod(len(items), world_size())
    start = rank() * per_process + min(rank(), more)
    return items[start : start + per_process + (rank() < more)]


def all_sum(value: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor that has the same shape in each; no gradient goes through."""
    if world_size() == 1:
        return value
    total = value.detach().to(_device(), copy=True, memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total.to(value.device)


def any_of_all(flag: bool) -> bool:
    """Return whether the flag is up in any process."""
    return bool(all_sum(torch.tensor(int(flag))))


def gather(value: T) -> list[T]:
    """Return what each process gives, in their order; tensors lie in main memory."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows of all processes, one after the other; their number may differ."""
    if world_size() == 1:
        return rows
    return torch.cat(gather(rows.detach().cpu())).to(rows.device)


def gather_stream(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the rows of all processes, in rounds of one part of each process, until all streams have ended."""
    if world_size() == 1:
        yield from parts
        return
    own = iter(parts)
    while found := [part for of_one in gather([part.cpu() for part in itertools.islice(own, 1)]) for part in of_one]:
        yield torch.cat(found).to(_device())


def follow_first(values: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in the first process, in place."""
    for value in values if world_size() > 1 else ():
        dist.broadcast(value, 0)


def first_does(work: Callable[[], T]) -> T:
    """Let the first process do something alone, however long it takes, and give all its result.

    Raises:
        ContextsegError: in all processes, where it is raised in the first.
    """
    if world_size() == 1:
        return work()
    group: Any = dist.new_group(backend="gloo", timeout=_PATIENCE)
    found: list[Any] = [None]
    if rank() == 0:
        try:
            found[0] = work()
        except ContextsegError as error:
            found[0] = error
    dist.broadcast_object_list(found, group=group)
    dist.destroy_process_group(group)
    if isinstance(found[0], ContextsegError):
        raise found[0]
    result: T = found[0]
    return result


def _device() -> torch.device:
    """Return where tensors must lie to be exchanged."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
