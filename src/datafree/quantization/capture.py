"""A network as torch.export's graph: without writes in place, its computed weights evaluated, compared with the original."""

from __future__ import annotations

import copy
import operator
import sys
import traceback
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .._core.errors import UserError
from .._core.optional_packages import any_number, first_line, quiet
from ..models.behaviour import check_answers, check_state
from ..models.network import Network
from .annotate import BATCH_NORM, WEIGHTED
from .constants import fold_constants
from .plain_operators import write_plainly

__all__ = ["Normalised", "capture", "compare"]

_aten = torch.ops.aten
SAME = 1e-3
"""The largest difference between two forms of one network that counts as rounding, in units of the logits' spread."""
ADVICE = "write that part of the network without it (no branch on a tensor's value, no fixed number of images)"


class Normalised(nn.Module):
    """Pixels in the spec's range to logits: what is exported, so that a deployed file needs no constants beside it."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network.module
        self.spec = network.spec

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(self.spec.normalize(pixels))


def capture(network: Network) -> GraphModule:
    """The network, with its normalisation, as torch.export's graph, for any number of images.

    No operator of the graph writes into a tensor, so that each can be read, rounded and moved by itself. Raises UserError
    naming the operator or line that cannot be captured, and for a graph that answers differently from the network on noise.
    """
    check_state(network)
    images, failure, expected = network.probes(), None, None
    try:  # before the copy: some layers hold a weight that cannot be copied until they were run without gradients
        expected = torch.cat([network.predict(images.clone()), network.predict(images[:1].clone())])
    except Exception as error:  # whatever the network's code raises; torch.export finds better words for most
        failure = error
    module = _copied(network)
    image = torch.full((2, *network.spec.shape), (network.spec.low + network.spec.high) / 2)
    try:
        with torch.no_grad(), quiet(), torch.compiler.set_stance("force_eager"):
            program = torch.export.export(module, (image,), dynamic_shapes=any_number())
            if any(map(_writes, program.graph.nodes)):
                program = program.run_decompositions({})
            graph = program.module()
    except Exception as error:  # torch.export raises whatever the network's code or its own passes do
        raise _uncapturable(network, error) from error
    if expected is None:
        assert failure is not None
        raise failure if isinstance(failure, UserError) else _uncapturable(network, failure) from failure
    assert isinstance(graph, GraphModule)
    _whole_batch_norms(graph)
    _check_statistics(network.name, graph)
    _without_writes(network.name, graph)
    check_answers(network, images, expected[:-1])
    write_plainly(graph)
    fold_constants(graph)
    try:
        with torch.no_grad():
            logits = torch.cat([graph(images), graph(images[:1])])
    except AssertionError as error:  # a guard of torch.export
        raise UserError(f"torch.export cannot capture {network.name}: {FIXED}; {ADVICE}") from error
    compare(network.name, expected, logits, CAPTURED)
    _check_dtypes(network.name, graph)
    return graph


def _uncapturable(network: Network, error: Exception) -> UserError:
    halves = {parameter.dtype for parameter in network.module.parameters()} & {torch.float16, torch.bfloat16}
    advice = ADVICE
    if halves:
        advice = f"it has weights in {str(min(halves, key=str)).removeprefix('torch.')}: call .float() on it first"
    return UserError(f"torch.export cannot capture {network.name}: {_cause(error)}{_place(error)}; {advice}")


CAPTURED = (
    "its captured graph", "write that part of the network without randomness, state, or writes to `.data`"
)  # fmt: skip
FIXED = (
    "it can do so for a fixed number of images alone, or for some numbers, expected any number; to torch.export len(x) is a "
    "fixed number, which x.shape[0] is not, and so is that of the parts of x.unbind()"
)


def compare(name: str, expected: Tensor, logits: Tensor, form: tuple[str, str], most: float = SAME) -> None:
    """Raises UserError where logits (N, classes) differ from the expected ones by more than `most` of their spread.

    `form` says what gave the logits, and what a user can do. The spread is the largest distance from the mean over images,
    or a hundredth of the largest logit where that is more.
    """
    logits = logits.detach().float()
    spread = (expected - expected.mean(0)).abs().max() if len(expected) > 1 else expected.new_zeros(())
    unit = float(torch.maximum(spread, expected.abs().max() / 100))
    apart = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("nan")
    if not apart <= most * unit:
        what, advice = form
        raise UserError(
            f"{what} answers differently from {name}: logits differ by up to {apart:.2g} on {len(expected)} images, "
            f"expected at most {most * unit:.2g}; {advice}"
        )


def _copied(network: Network) -> nn.Module:
    """A copy on the CPU in eval mode, without compiled wrappers. Raises UserError for TorchScript."""
    for name, part in network.module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"its layer {name!r} is" if name else "it is"
            raise UserError(
                f"{network.name} cannot be captured: {where} TorchScript, expected a torch.nn.Module in Python; give the "
                "module that was scripted or traced, with its weights"
            )
    try:
        with quiet():
            module = copy.deepcopy(Normalised(network))
    except UserError:
        raise
    except Exception as error:  # whatever a module's own __deepcopy__ raises
        raise UserError(
            f"{network.name} cannot be copied: {first_line(error)}; give a module that copy.deepcopy takes"
        ) from error
    if {own.dtype for own in module.parameters() if own.is_floating_point()} == {torch.float64}:
        module = module.float()
    return _eager(module).cpu().eval()


def _eager(module: nn.Module) -> nn.Module:
    """The module itself, every `torch.compile` on it or in it undone, in place."""
    for part in list(module.modules()):
        part._compiled_call_impl = None  # what Module.compile() sets
        for name, child in part.named_children():
            original = child
            while isinstance(original, torch._dynamo.eval_frame.OptimizedModule):
                original = original._orig_mod
            if original is not child:
                setattr(part, name, original)
    return module


def _writes(node: Node) -> bool:
    """Whether it changes a tensor's values; `detach_`, with which every tensor made in forward begins, does not."""
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        and node.target != _aten.detach_.default
    )


def _whole_batch_norms(graph: GraphModule) -> None:
    """Batch norms with three outputs, as torch decomposes them, back into those with one, in place."""
    for node in list(graph.graph.nodes):
        if node.target != _aten._native_batch_norm_legit_no_training.default:
            continue
        if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
            continue
        *tensors, momentum, epsilon = node.args
        with graph.graph.inserting_before(node):
            one = graph.graph.call_function(_aten.batch_norm.default, (*tensors, False, momentum, epsilon, False))
        for user in list(node.users):
            one.meta = dict(user.meta)
            user.replace_all_uses_with(one)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.recompile()


def _check_statistics(name: str, graph: GraphModule) -> None:
    """Raises UserError for a batch norm whose statistics are the batch's."""
    for node in graph.graph.nodes:
        kind = node.target.overloadpacket.__name__ if isinstance(node.target, torch._ops.OpOverload) else ""
        if node.target == _aten.batch_norm.default and node.args[3] is None:
            raise UserError(
                f"{name} has a batch norm without running statistics (track_running_stats=False), wanted one with "
                "them; train it so"
            )
        if (node.target == _aten.batch_norm.default and node.args[5]) or (
            kind.startswith(("_native_batch_norm_legit", "_batch_norm_with_update")) and node.target not in BATCH_NORM
        ):
            raise UserError(
                f"{name} has a batch norm that takes the statistics of the batch in eval mode (training=True), expected "
                "running statistics; call it with training=self.training"
            )


def _check_dtypes(name: str, graph: GraphModule) -> None:
    """Raises UserError for a layer that computes in another number format than float32, which could not be rounded."""
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if node.target in WEIGHTED and isinstance(value, Tensor) and value.dtype != torch.float32:
            raise UserError(
                f"{name} has a layer in {str(value.dtype).removeprefix('torch.')} ({node.name}), expected float32; "
                "call .float() on the network and leave out casts in forward"
            )


def _without_writes(name: str, graph: GraphModule) -> None:
    """Removes the writes to buffers and to the input with which a functional graph ends. Raises UserError for any other.

    A buffer that is written and on which the logits depend makes them depend on the images before, which is refused.
    """
    for node in list(graph.graph.nodes):
        if node.target == _aten.detach_.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise UserError(
                f"{name} has a block {node.target.name()}, whose layers cannot be rounded; take it out (torch.cond, "
                "torch.autocast or torch.enable_grad in forward)"
            )
        if not _writes(node):
            continue
        source = node.args[0]
        if node.target != _aten.copy_.default or not isinstance(source, Node) or source.op == "call_function":
            raise UserError(
                f"{name} writes in place in a way that cannot be captured ({node.target}); write that part of it without"
            )
        node.replace_all_uses_with(node.args[1])  # type: ignore[arg-type]
        graph.graph.erase_node(node)
        if source.op == "get_attr" and _reaches_output(source):
            raise UserError(
                f"{name} writes its tensor {str(source.target).removeprefix('network.')!r} on every call and its logits "
                "depend on it, expected the same answer to the same image; leave that out in eval mode"
            )
    graph.recompile()


def _reaches_output(node: Node) -> bool:
    found, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in found:
                found.add(user)
                waiting.append(user)
    return False


def _cause(error: Exception) -> str:
    line = first_line(error)
    if line.startswith("Constraints violated (batch)"):
        return FIXED
    return line


def _place(error: Exception) -> str:
    """The innermost line on the way to the error that is the network's own; nothing where there is none."""
    others = {"torch", "torchao", "sympy", "numpy", *sys.stdlib_module_names}
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module, code = str(frame.f_globals.get("__name__")), frame.f_code
        if module != __name__ and module.partition(".")[0] not in others and not code.co_filename.startswith("<"):
            found = f", at {Path(code.co_filename).name}:{line} in {code.co_name}"
    return found
