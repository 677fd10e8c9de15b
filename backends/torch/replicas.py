"""Several processes, one state: the one all-reduce of an update, and who takes part in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.join import JoinHook
from torch.distributed.device_mesh import DeviceMesh

from loss_balance.schemes.base import AnyState


class Replicas:
    """The processes that share a balancer's state.

    Args:
        group: a ProcessGroup, a DeviceMesh of one dimension, or None for all processes.
        sync: False keeps each process to itself.

    Raises:
        ValueError: the group is something else, or this process is outside it.
    """

    def __init__(self, group: Any = None, *, sync: bool = True) -> None:
        self.sync = sync
        self.group: Any = _as_group(group)
        self.joined: Any = None  # the same processes, for use under `Join`
        self.lost: list[int] | None = None  # ranks of a group that went with a pickle
        self.met = False  # whether they have looked at the first values together

    def talking(self) -> bool:
        """Whether processes are at work together, this one among them or not."""
        return self.sync and dist.is_available() and dist.is_initialized()

    def alone(self) -> bool:
        """Whether there is nobody to ask; ValueError for a process that does not belong here."""
        if not self.talking():
            return True
        if self.lost is not None:
            raise ValueError(
                "a process group does not travel with a pickle: set balance.process_group "
                f"after loading, it was of ranks {self.lost}"
            )
        if dist.get_rank(self.group) < 0:
            raise ValueError(
                "only processes of process_group may call the balancer in training, "
                f"rank {dist.get_rank()} is none (sync=False keeps a process to itself)"
            )
        return dist.get_world_size(self.group) == 1

    def reduce(self, pending: Tensor, state: AnyState) -> tuple[Tensor, AnyState]:
        """(`pending` summed over all, the state of the first replica), by one all-reduce.

        The state goes along in every update, so that no replica has to know whether another one was
        loaded or reset.
        """
        payload = self._payload(pending, state)
        dist.all_reduce(payload, group=self._channel())
        return _unpacked(payload, pending, state)

    def reduce_later(
        self, pending: Tensor, state: AnyState
    ) -> Callable[[], tuple[Tensor, AnyState]]:
        """Begins a `reduce`; what it returns waits for the others."""
        payload = self._payload(pending, state)
        work = dist.all_reduce(payload, group=self._channel(), async_op=True)

        def finish() -> tuple[Tensor, AnyState]:
            work.wait()
            return _unpacked(payload, pending, state)

        return finish

    def _payload(self, pending: Tensor, state: AnyState) -> Tensor:
        """What this replica adds to the sum, in float64, so that whole numbers stay exact."""
        parts = [value.reshape(-1).double() for value in _shared(state)]
        if dist.get_rank(self.group) != 0:
            parts = [torch.zeros_like(part) for part in parts]
        return torch.cat([pending.reshape(-1).double(), *parts])

    def _channel(self) -> Any:
        return self.group if self.joined is None else self.joined

    def whole_group(self) -> Any:
        """The group, with all processes by their own name."""
        return dist.group.WORLD if self.group is None else self.group

    def prepare_to_join(self) -> None:
        """Makes a group of the same processes; to be called by all of them.

        A replica that has run out of inputs begins ours before DDP's, the others do not; in a group
        of its own it is not taken for one of DDP's.
        """
        if self.joined is not None or self.alone():
            return
        ranks = dist.get_process_group_ranks(self.whole_group())
        part = len(ranks) < dist.get_world_size()  # the other processes know nothing of this
        self.joined = dist.new_group(ranks, use_local_synchronization=part)

    def __deepcopy__(self, memo: Any) -> Replicas:
        """The same processes: a group is no value that could be copied."""
        other = Replicas(sync=self.sync)
        vars(other).update(vars(self))
        return other

    def __getstate__(self) -> dict[str, Any]:
        ranks = self.lost
        if self.group is not None and dist.is_initialized():
            ranks = dist.get_process_group_ranks(self.group)
            if ranks == list(range(dist.get_world_size())):
                ranks = None
        return {"sync": self.sync, "group": None, "joined": None, "lost": ranks, "met": False}


class Shadow(JoinHook):
    """Takes part in the all-reduce of the replicas that still have inputs: all losses absent.

    It waits for the others only when the next one begins: they come to it after DDP's collectives
    of the forward pass and before those of the backward pass, which DDP shadows in one go.
    """

    def __init__(self, balancer: Any) -> None:
        self.balancer = balancer
        self.finish: Callable[[], None] | None = None

    def main_hook(self) -> None:
        self._wait()
        self.finish = self.balancer.observe_nothing()

    def post_hook(self, is_last_joiner: bool) -> None:  # noqa: ARG002
        self._wait()

    def _wait(self) -> None:
        if self.finish is not None:
            self.finish()
        self.finish = None


def _unpacked(payload: Tensor, pending: Tensor, state: AnyState) -> tuple[Tensor, AnyState]:
    """The sum of what `_payload` gave, as it was."""
    sizes = [pending.numel(), *(value.numel() for value in _shared(state))]
    total, *fields = torch.split(payload, sizes)
    shared = {
        name: field.reshape(getattr(state, name).shape).to(getattr(state, name).dtype)
        for name, field in zip(_names(state), fields, strict=True)
    }
    return total.reshape(pending.shape).to(pending.dtype), state._replace(**shared)


def _names(state: AnyState) -> list[str]:
    return [name for name in state._fields if name != "pending"]


def _shared(state: AnyState) -> list[Tensor]:
    return [getattr(state, name) for name in _names(state)]


def _as_group(group: Any) -> Any:
    if group is None or not dist.is_available():
        return group
    if group == dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("process_group must have this process in it, got one without")
    if isinstance(group, DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"a DeviceMesh as process_group must have one dimension, got {group.ndim}: "
                "pass the part of it that holds the replicas, mesh['data']"
            )
        return group.get_group()
    if not isinstance(group, dist.ProcessGroup):
        raise ValueError(
            "process_group must be a ProcessGroup or a DeviceMesh, "
            f"got a {type(group).__name__} (dist.new_group makes one of ranks)"
        )
    return group
