"""The PyTorch balancer: an `nn.Module` that holds a scheme's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.algorithms.join import Joinable, JoinHook

from loss_balance.backends.interface import (
    check_equilibrium,
    check_names,
    check_observed,
    check_priorities,
    check_vector,
    in_order,
)
from loss_balance.backends.torch.forks import Branching
from loss_balance.backends.torch.inputs import as_vector
from loss_balance.backends.torch.known import AllSeen
from loss_balance.backends.torch.replicas import Replicas, Shadow
from loss_balance.schemes.adaloss import as_scheme
from loss_balance.schemes.base import Scheme


class Balancer(Branching, Joinable):
    """Weighted sum of losses whose weights follow the losses.

    ::

        balance = Balancer(AdaLoss(3)).to(device)
        loss = balance([loss1, loss2, loss3])
        loss.backward()

    The state lives in buffers, so `state_dict()` saves it when the balancer is part of the model or
    saved beside it; it says whose it is, and loading that of another scheme, other hyperparameters
    or other names is an error that names what differs (`load_state_dict(..., strict=False)` takes
    other hyperparameters all the same; after a `from_pretrained`, which has no such option,
    `import_state(export_state(), strict=False)`). Built on the meta device, materialised, loaded
    from a checkpoint that lacks it or emptied by `to_empty()`, it begins fresh. The state keeps its
    dtype through `.half()` and its place in memory, so captured CUDA graphs stay valid. `eval()`
    freezes it. No gradient flows through the weights. The first eager call looks at the values
    once; after it no step waits for the device.

    Across processes the averages follow the mean loss over all replicas that have it, so every
    replica holds the same weights: one all-reduce per update, which carries the state of the first
    replica too, so that replicas that start unequal are equal from then on. The gradients are
    averaged by DDP as usual. All replicas must call it in training mode equally often: one that
    validates alone in training mode waits for the others for ever, as in any collective, so call
    `eval()` before. For uneven inputs join both, the balancer first, and say so in every step::

        with Join([balance, ddp]):
            for x, y in loader:
                Join.notify_join_context(balance)
                ...

    Under `torch.compile` losses that come and go as None are a graph each: use `mask`, whose values
    may change freely, as those of `priorities` given as a tensor.

    Args:
        scheme: a `Scheme`; an int n means `AdaLoss(n)`.
        names: of the losses, needed for mappings and used in `metrics()`.
        priorities: factors of the losses, >= 0, multiplied with the weights after these were
            computed from the losses as they are; default: 1. A coefficient that a loss is
            multiplied by beforehand would be undone by the balance; and to favour the last loss
            within the balance there is AdaLoss's `final_weight`.
        accumulate: how many calls make one update, on the mean of their losses, as many
            micro-batches make one step of the optimiser (under DDP's `no_sync` too: the calls
            between ask no other replica).
        dtype: of the state, float32 or float64, whatever the losses' dtype.
        process_group: the replicas, a ProcessGroup or a DeviceMesh of one dimension; default: all
            processes, if torch.distributed is initialised. A copy keeps it; a pickle cannot, and
            a part of all processes is then to be set anew.
        sync: False keeps each process to itself.
        equilibrium: the weights act on the trunk's gradient, in `fork`, in place of the total,
            which is the plain sum of the losses.
        pull: the trunk's shares are of the weights to this power: 1 as they are, 0 even ones (the
            gradient equilibrium of Li et al. 2019), between them early exits pull more.
    """

    def __init__(
        self,
        scheme: Scheme | int,
        *,
        names: Sequence[str] | None = None,
        priorities: Sequence[float] | None = None,
        accumulate: int = 1,
        dtype: torch.dtype = torch.float32,
        process_group: Any = None,
        sync: bool = True,
        equilibrium: bool = False,
        pull: float = 1.0,
    ) -> None:
        nn.Module.__init__(self)
        Joinable.__init__(self)
        self.scheme: Scheme = as_scheme(scheme)
        self.names: tuple[str, ...] | None = check_names(names, self.scheme.num_losses)
        self.priorities: tuple[float, ...] | None = check_priorities(
            priorities, self.scheme.num_losses
        )
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"the state's dtype must be float32 or float64, got {dtype}")
        self.replicas = Replicas(process_group, sync=sync)
        self.known: AllSeen = AllSeen()
        self.begin_forks(equilibrium=bool(equilibrium), pull=pull)
        self.begin_clock(accumulate)
        self.hold(self.scheme.init(torch, dtype))
        # No buffer, for those may come back from the meta device empty.
        self._factors = (
            None if priorities is None else torch.tensor(self.priorities, dtype=dtype, device="cpu")
        )

    def forward(
        self,
        losses: Iterable[Tensor | float | None] | Mapping[str, Tensor | float | None] | Tensor,
        mask: Tensor | None = None,
        *,
        priorities: Any = None,
        update: bool | None = None,
        training: bool | None = None,
        norms: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum, a scalar in the losses' dtype; updates the state in training mode.

        In equilibrium it is the plain sum.

        Args:
            losses: scalars in any iterable or mapping, or a vector of shape (num_losses,), which is
                the fast path. None or a number 0 is a loss that is absent in this step; if all are,
                the total is 0 with a gradient of 0.
            mask: shape (num_losses,), bool, False where a loss is absent; its value, even a NaN,
                and its gradient are then left out. A NaN that arises before, as in a mean over no
                elements, still has a NaN for its gradient: write `x.sum() / count.clamp(min=1)`.
            priorities: shape (num_losses,), in place of the balancer's own in this call.
            update: False only notes the losses, for the mean that the next update takes; the
                weights stand still. Default: True at every `accumulate`-th call.
            training: whether to look at the losses at all, say False where a closure is called
                again or a step recomputed; default: the module's mode.
            norms: shape (num_losses,), for `GradientNorm` and its like: the gradient of the probe
                that the forks of the last step were given, zeros where there is none.

        Raises:
            ValueError: wrong count, shape or names; in the first eager call a negative loss, if the
                scheme takes none, or a state that cannot be.
        """
        vector, present = self._gather(losses, mask)
        check_equilibrium(self.equilibrium, priorities)
        factors = self._factors_of(priorities)
        training = self.training if training is None else training
        seen, present = self._observed(vector, present, norms, training=training)
        last_unseen = False
        if not torch.compiler.is_compiling() and not self._checked:
            last_unseen = self.look(seen, training=training)
        if training:
            if self._join_config.enable and not self._join_config.is_first_joinable:
                raise ValueError("in Join the balancer must come first: Join([balance, ddp])")
            weights = self.observe(seen, present, update, last_unseen=last_unseen)
        else:
            weights = self.weights.clone()  # backward must not see what a later step writes
        if self._traced is not None:  # to set it takes as long as a kernel
            self._traced = None  # the forks of the next step begin anew
        if self.equilibrium:
            return vector.sum()
        return _total(weights if factors is None else weights * factors, vector)

    def metrics(self) -> dict[str, float]:
        """`loss_weight/<name>`, `loss_average/<name>` and `loss_skipped/<name>`, for any logger.

        A weight at gamma is on AdaLoss's floor. Warns, once, of losses that were bad in more than
        half of the last 100 updates. Waits for the device: call it as often as you log.
        """
        return self.read_metrics()

    @property
    def process_group(self) -> Any:
        """The replicas; to be set anew after unpickling, if they are not all processes."""
        return self.replicas.group

    @process_group.setter
    def process_group(self, group: Any) -> None:
        self.replicas: Replicas = Replicas(group, sync=self.replicas.sync)

    def _gather(self, losses: Any, mask: Any) -> tuple[Tensor, Tensor | None]:
        """The losses as one vector, zero where absent, and which are present (None: all)."""
        count = self.scheme.num_losses
        ordered = losses if isinstance(losses, Tensor) else in_order(losses, self.names, count)
        vector, present = as_vector(ordered, self.average)
        check_vector("losses", vector.shape, count)
        if not vector.is_floating_point():
            raise ValueError(f"losses must be real floating point, got {vector.dtype}")
        if mask is not None:
            mask = torch.as_tensor(mask, dtype=torch.bool, device=vector.device)
            check_vector("a mask", mask.shape, count)
            vector = torch.where(mask, vector, 0.0)
            present = mask if present is None else present & mask
        return vector, present

    def _observed(
        self, vector: Tensor, present: Tensor | None, norms: Tensor | None, *, training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What the state follows, detached, and what of it is present: losses or their norms."""
        if training or norms is not None:
            check_observed(self.scheme, norms, equilibrium=self.equilibrium)
        if norms is None:
            return vector.detach(), present
        check_vector("norms", norms.shape, self.scheme.num_losses)
        return norms.detach().to(vector.device), None

    def _factors_of(self, priorities: Any) -> Tensor | None:
        """The priorities of this call, or else of the balancer; None where all are 1."""
        if priorities is None:
            return self._factors_now()
        factors = torch.as_tensor(priorities, dtype=self.weights.dtype, device=self.weights.device)
        check_vector("priorities", factors.shape, self.scheme.num_losses)
        return factors

    def join_hook(self, **_: Any) -> JoinHook:
        """What a replica that has run out of inputs does: takes part in the others' all-reduce."""
        self.replicas.prepare_to_join()
        return Shadow(self)

    @property
    def join_device(self) -> torch.device:
        """The device that the state is on."""
        return self.average.device

    @property
    def join_process_group(self) -> Any:
        """The replicas."""
        return self.replicas.whole_group()

    def extra_repr(self) -> str:
        return f"{self.scheme}" + (f", names={list(self.names)}" if self.names else "")


def _total(weights: Tensor, vector: Tensor) -> Tensor:
    """The weighted sum in the dtype of the losses, computed in the wider of both.

    But for bfloat16: it has the range of float32, and two kernels less.
    """
    wide = vector.dtype
    if weights.dtype == wide:
        return torch.dot(weights, vector)
    if weights.dtype.itemsize > wide.itemsize and wide != torch.bfloat16:
        wide = weights.dtype
    return torch.dot(weights.to(wide), vector.to(wide)).to(vector.dtype)
