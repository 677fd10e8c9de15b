"""Any PyTorch network in stages: what lies between named modules, each run by itself.

`torch.fx` follows the network down to the modules whose outputs are wanted, and takes every other
module as it is, whatever its Python does. The stages are code over the network's own modules, so
they always see its weights, its hooks and its mode as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from loss_balance.reference_models.description.exits import check_known, out_of_order

ROOT = "backbone"  # how a stage's owner calls the network


@dataclass(frozen=True)
class Stage:
    """One stretch: of tensors that the one before handed on, to those it hands on.

    The first of these is the wanted module's output, or of the last stage the network's.
    """

    run: Callable[..., tuple[Tensor, ...]]  # (owner, *tensors)
    uses: tuple[str, ...]  # names of the modules, parameters and buffers in it, within the network

    def __call__(self, owner: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
        return self.run(owner, *tensors)


def joined(stages: Sequence[Stage]) -> Stage:
    """Several as one, which hands on what the last one does."""

    def run(owner: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
        for stage in stages:
            tensors = stage(owner, *tensors)
        return tensors

    return Stage(run, tuple(name for stage in stages for name in stage.uses))


class _Tracer(fx.Tracer):
    """Looks into those modules alone that have a wanted one in them."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._around = {ROOT}
        for name in names:
            *around, _ = f"{ROOT}.{name}".split(".")
            self._around.update(".".join(around[: n + 1]) for n in range(len(around)))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return module_qualified_name not in self._around


class _Whole(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network

    def forward(self, x: Tensor) -> Any:
        return self.backbone(x)


def split(network: nn.Module, names: Sequence[str]) -> tuple[Stage, ...]:
    """The stages up to each named module's output, and the one to the network's.

    Each computes what is needed for its end and no stage before it has computed. The training mode
    that the network is in stays that of what stands outside of modules, such as `F.dropout`.

    Raises:
        ValueError: there is no such module; the network's Python depends on values on the way to
            one; a module is called more than once, is not on the way to the output, or they are not
            in order.
    """
    check_known(names, [name for name, _ in network.named_modules() if name], "modules")
    try:
        graph = _Tracer(names).trace(_Whole(network))
    except Exception as error:  # what the network's own code does with a value that is not there
        raise ValueError(
            f"what stands around {', '.join(names)} must be free of Python that depends on values, "
            f"as torch.fx needs it, got {type(error).__name__}: {error}"
        ) from error
    ends = [_node_of(graph, name) for name in names]
    (output,) = (node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if not isinstance(result, fx.Node):
        raise ValueError(f"the network must return one tensor, its logits, got {result}")
    ends.append(result)
    parts: list[list[fx.Node]] = []
    done: set[fx.Node] = set()
    for name, end in zip((*names, "the output"), ends, strict=True):
        needed = _needed(end)
        before = names[: len(parts)]
        if end is result and result in ends[:-1]:
            raise ValueError(
                "exits must be before the model's output, which always is the last, got "
                f"{names[ends.index(result)]!r}, whose output that is"
            )
        if end in done:
            raise out_of_order(before[-1], name)
        aside = [n for n, e in zip(before, ends, strict=False) if e not in needed]
        if aside and end is result:
            raise ValueError(
                f"exits must be on the way to the output, got {aside[0]!r}, which is not"
            )
        if aside:
            raise out_of_order(aside[0], name)
        parts.append([node for node in graph.nodes if node in needed - done])
        done |= needed
    return tuple(_stages(graph, parts, ends))


def _node_of(graph: fx.Graph, name: str) -> fx.Node:
    found = [n for n in graph.nodes if n.op == "call_module" and n.target == f"{ROOT}.{name}"]
    if len(found) != 1:
        raise ValueError(
            f"an exit must be at a module called once, got {name!r}, called {len(found)} times"
        )
    node: fx.Node = found[0]
    return node


def _needed(end: fx.Node) -> set[fx.Node]:
    """What `end` is computed from, itself too."""
    found, waiting = {end}, [end]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def _stages(
    graph: fx.Graph, parts: Sequence[Sequence[fx.Node]], ends: Sequence[fx.Node]
) -> Iterable[Stage]:
    """The parts as functions. What is read from the network itself is read where it is used."""
    (given,) = (node for node in graph.nodes if node.op == "placeholder")
    handed: list[fx.Node] = [given]
    for k, (part, end) in enumerate(zip(parts, ends, strict=True)):
        later = {n for p in parts[k + 1 :] for node in p for n in node.all_input_nodes}
        computed = [n for n in part if n.op not in ("placeholder", "get_attr")]
        going = [n for n in (*handed, *computed) if n in later and n.op != "get_attr" and n != end]
        yield _stage(handed, computed, [end, *going])
        handed = [end, *going]


def _stage(
    handed: Sequence[fx.Node], computed: Sequence[fx.Node], results: Sequence[fx.Node]
) -> Stage:
    own = fx.Graph()
    known: dict[fx.Node, fx.Node] = {n: own.placeholder(f"handed{i}") for i, n in enumerate(handed)}

    def here(node: fx.Node) -> fx.Node:
        if node not in known and node.op == "get_attr":
            known[node] = own.node_copy(node)
        return known[node]

    for node in computed:
        known[node] = own.node_copy(node, here)
    own.output(tuple(here(node) for node in results))
    code = own.python_code("self")
    names: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, "<a stage>", "exec"), names)
    used = [str(n.target) for n in own.nodes if n.op in ("call_module", "get_attr")]
    return Stage(names["forward"], tuple(name.removeprefix(f"{ROOT}.") for name in used))
