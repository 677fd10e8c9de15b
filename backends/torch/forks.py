"""Where an exit branches off the trunk: forward the identity, backward a weighted mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # what torch itself takes apart structures with

from loss_balance.backends.interface import exit_index
from loss_balance.backends.torch.clock import Clock
from loss_balance.backends.torch.inputs import eager
from loss_balance.backends.torch.known import version
from loss_balance.equilibrium import STRENGTH, TEMPERATURE, check_pull, shares, strength_at
from loss_balance.equilibrium import guidance as guidance_of_exits
from loss_balance.schemes.averaging import Schedule
from loss_balance.schemes.base import AnyState


class Seen:
    """Weights as they were, and the shares that follow from them, of the core, exit by exit."""

    def __init__(
        self, source: Tensor, shares_of: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        self.source: Tensor = source
        self.version: int | None = version(source)
        self.weights: Tensor = source.clone()  # a later step writes into them
        own, deeper = shares_of(self.weights)
        self.own: tuple[Tensor, ...] = own.unbind()
        self.deeper: tuple[Tensor, ...] = deeper.unbind()

    def is_of(self, weights: Tensor) -> bool:
        """Whether nothing was written to these weights since."""
        return weights is self.source and version(weights) == self.version is not None


class Branching(Clock):
    """The part of the balancer that stands where exits branch off the trunk.

    Attributes:
        equilibrium: whether there are forks, and the total is the plain sum of the losses.
        pull: the power of the weights that the trunk's shares are of.
    """

    equilibrium: bool
    pull: float
    _factors: Tensor | None
    _seen: Seen | None  # in the present step
    _traced: Tensor | None  # the weights of the present step of a graph

    def begin_forks(self, *, equilibrium: bool, pull: float) -> None:
        """Sets `equilibrium` and `pull`."""
        self.equilibrium, self.pull = equilibrium, check_pull(pull)
        self._seen = self._traced = None
        self._left: Tensor | None = None

    def fork(self, features: Any, index: int | str, probe: Tensor | None = None) -> tuple[Any, Any]:
        """(what exit `index` reads, what goes on to deeper ones); both are `features`.

        ::

            branch, x = balance.fork(x, i)
            logits.append(head(branch))

        Backward the gradients from both are mixed, with the weights in force when this was called,
        so that what comes before has the weighted mean of the gradients of all losses from this
        exit on (`loss_balance.equilibrium`). To be called for every exit, the last one too, in the
        order of the losses; where no gradient is asked for it does nothing. Under `torch.compile`
        leave it out of what `torch.utils.checkpoint` computes again.

        Args:
            features: any pytree of tensors, such as a list of maps.
            index: of the exit's loss, from 0, or its name.
            probe: shape (num_losses,), zeros with a gradient: that becomes the norms of the exits'
                gradients, for `norms` of the next call (`GradientNorm`).

        Raises:
            ValueError: there is no such exit, or the balancer does not work in equilibrium.
        """
        count = self.scheme.num_losses
        place = exit_index(index, self.names, count, equilibrium=self.equilibrium)
        probe = None if probe is None else probe[place]
        if torch.compiler.is_compiling() and torch.is_grad_enabled():
            with torch.no_grad():
                own, deeper = self._shares_of(self._weights_traced())
            return mixed(features, own[place], deeper[place], probe)
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return features, features
        seen = self._seen_now()  # without gradients too: an outer checkpoint asks for it later
        if not torch.is_grad_enabled():
            return features, features
        return mixed(features, seen.own[place], seen.deeper[place], probe)

    def guidance(
        self,
        logits: Sequence[Tensor] | Tensor,
        strength: float | Schedule = STRENGTH,
        temperature: float = TEMPERATURE,
    ) -> Tensor:
        """What to add to the total so that early exits learn from the last one, a scalar.

        ::

            loss = balance.guidance(logits) + balance(losses)

        The sum of `loss_balance.equilibrium.guidance` over the exits, in float32 or wider, by the
        weights that the state has: before the balancer is called those of its forks.

        Args:
            logits: of each exit, (..., classes); a sequence or stacked.
            strength: g, a number or a schedule of the balancer's updates, of (step, xp, dtype):
                `LinearSchedule(0.0, 1.0, steps)` teaches late, when the last exit knows more.
            temperature: tau.
        """
        wide = [x.to(torch.promote_types(x.dtype, torch.float32)) for x in logits]
        wide[-1] = wide[-1].detach()
        dtype = wide[-1].dtype
        compiling = torch.compiler.is_compiling()
        weights = self._weights_traced() if compiling else self._seen_now().weights
        step = _kept(self.step) if compiling and callable(strength) else self.step
        share = strength_at(strength, step, torch, dtype)
        found: Tensor = guidance_of_exits(wide, weights.to(dtype), share, temperature, torch)
        return found.sum()

    @torch.no_grad()
    def _seen_now(self) -> Seen:
        """The weights of this step and their shares, computed once in it."""
        known, weights = self._seen, self.weights
        # An outer checkpoint runs the forward pass again within backward, when the weights have
        # moved.
        again = known is not None and torch._C._current_graph_task_id() != -1
        if known is None or not (again or known.is_of(weights)):
            self.wake()
            known = Seen(self.weights, self._shares_of)
            self._seen = known if eager(self.weights) else None
        return known

    @torch.no_grad()
    def _weights_traced(self) -> Tensor:
        if self._traced is None:
            self._traced = _kept(self.weights)
            # What leaves the graph is computed in its forward part: else AOTAutograd puts it into
            # the backward part, where the weights have moved.
            self._left = self._traced
        return self._traced

    def _shares_of(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The shares of the trunk, of these weights and the balancer's priorities."""
        return shares(weights, torch, self.pull, self._factors_now())

    def _factors_now(self) -> Tensor | None:
        """The balancer's own priorities, where the weights are; None where all are 1."""
        if self._factors is not None and self._factors.device != self.weights.device:
            self._factors = self._factors.to(self.weights.device)  # once: it moved
        return self._factors

    def state_came(self, state: AnyState, calls: int) -> None:
        super().state_came(state, calls)
        self._traced = None

    def train(self, mode: bool = True) -> Any:
        """Sets the mode; a forward pass that had no step is over."""
        self._traced = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_seen": None, "_traced": None, "_left": None}


@torch.library.custom_op("loss_balance::kept", mutates_args=())
def _kept(weights: Tensor) -> Tensor:
    """A copy that no compiler computes again in the backward pass, from what was written since."""
    return weights.clone()


@_kept.register_fake
def _(weights: Tensor) -> Tensor:
    return torch.empty_like(weights)


class _Fork(torch.autograd.Function):
    """Maps twice; the gradients that come back are mixed, and the norm of the first is noted."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        probe: Tensor | None, own: Tensor, deeper: Tensor, *maps: Tensor
    ) -> tuple[Tensor, ...]:
        del probe, own, deeper
        return (*(x.view_as(x) for x in maps), *(x.view_as(x) for x in maps))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        del output
        # Not saved as tensors for backward: recomputed, the fork would find the weights that the
        # step has moved meanwhile.
        probe, ctx.own, ctx.deeper, *maps = inputs
        ctx.noted, ctx.count = probe is not None, len(maps)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        branch, onward = gradients[: ctx.count], gradients[ctx.count :]
        mean = [_mean(*pair, ctx.own, ctx.deeper) for pair in zip(branch, onward, strict=True)]
        return (_norm(branch, ctx.own) if ctx.noted else None, None, None, *mean)


def _mean(
    branch: Tensor | None, onward: Tensor | None, own: Tensor, deeper: Tensor
) -> Tensor | None:
    if branch is None or onward is None:
        only, share = (onward, deeper) if branch is None else (branch, own)
        return None if only is None else only * share.to(only.dtype)
    # own + deeper is 1, so this is own * branch + deeper * onward, in one kernel
    return torch.lerp(branch, onward, deeper.to(branch.dtype))


def _norm(gradients: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """Of all gradients together, in the dtype of `like`; 0 where there is none."""
    there = [torch.linalg.vector_norm(g, dtype=like.dtype) for g in gradients if g is not None]
    return torch.linalg.vector_norm(torch.stack(there)) if there else torch.zeros_like(like)


def mixed(
    features: Any, own: Tensor, deeper: Tensor, probe: Tensor | None = None
) -> tuple[Any, Any]:
    """(what the exit reads, what goes on), both `features`, of any pytree of tensors.

    Args:
        features: maps; what has no gradient goes through.
        own: shape (), the share of the exit's gradient in the trunk's.
        deeper: shape (), that of the gradient from deeper down; both sum to 1.
        probe: shape (); its gradient becomes the norm of the exit's.
    """
    leaves, structure = pytree.tree_flatten(features)
    places = [i for i, x in enumerate(leaves) if isinstance(x, Tensor) and x.requires_grad]
    if not places:
        return features, features
    found = _Fork.apply(probe, own, deeper, *(leaves[i] for i in places))  # type: ignore[no-untyped-call]
    branch, onward = list(leaves), list(leaves)
    for i, place in enumerate(places):
        branch[place], onward[place] = found[i], found[i + len(places)]
    return pytree.tree_unflatten(branch, structure), pytree.tree_unflatten(onward, structure)
