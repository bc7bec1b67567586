"""Captures a network as torch.export's graph without in-place writes or computed weights, and compares both."""

from __future__ import annotations

import copy
import operator
import re
import sys
import traceback
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .._core.errors import UserError
from .._core.optional_packages import any_number, first_line, quiet
from ..models.behaviour import check_answers, check_state
from ..models.network import Network
from ..models.outputs import logits_of
from .annotate import BATCH_NORM, WEIGHTED
from .constants import fold_constants
from .plain_operators import write_plainly

__all__ = ["Normalised", "capture", "compare"]

_aten = torch.ops.aten
SAME = 1e-3
"""Maximum difference of two forms of a network that counts as rounding, relative to the logits' spread."""
ADVICE = "write that part of the network without it (no branch on a tensor's value, no fixed number of images)"


class Normalised(nn.Module):
    """Maps pixels in the spec's range to logits; exported files then need no normalisation constants."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network.module
        self.spec = network.spec
        self.logits_of = partial(logits_of, classes=len(self.spec.classes), name=network.name, output=network.output)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits_of(self.network(self.spec.normalize(pixels)), pixels.shape[0])


def capture(network: Network) -> GraphModule:
    """The network with its normalisation as torch.export's graph, for any number of images.

    No operator of the graph writes in place, so each can be read, rounded and moved separately. Raises UserError with
    the operator or line that cannot be captured, or if the graph's logits on noise differ from the network's.
    """
    check_state(network)
    images, failure, expected = network.probes(), None, None
    try:  # before the copy: some weights cannot be copied until the layer has run without gradients
        expected = torch.cat([network.predict(images.clone()), network.predict(images[:1].clone())])
    except Exception as error:  # from the network's code; torch.export has better messages for most
        failure = error
    module = _copied(network)
    image = torch.full((2, *network.spec.shape), (network.spec.low + network.spec.high) / 2)
    try:
        with torch.no_grad(), quiet(), torch.compiler.set_stance("force_eager"):
            program = torch.export.export(module, (image,), dynamic_shapes=any_number())
            if any(map(_writes, program.graph.nodes)):
                program = program.run_decompositions({})
            graph = program.module()
    except Exception as error:  # from the network's code or torch.export's passes
        raise _uncapturable(network, error) from error
    if expected is None:
        assert failure is not None
        raise failure if isinstance(failure, UserError) else _uncapturable(network, failure) from failure
    assert isinstance(graph, GraphModule)
    _merge_batch_norms(graph)
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
    hiding = _hiding_folder(error)
    if hiding is not None:
        return UserError(
            f"the folder {hiding} in the working directory hides the Python package of that name, which torch.export asks "
            "for; rename the folder, or run from another one"
        )
    halves = {parameter.dtype for parameter in network.module.parameters()} & {torch.float16, torch.bfloat16}
    advice = ADVICE
    if halves:
        advice = f"it has weights in {str(min(halves, key=str)).removeprefix('torch.')}: call .float() on it first"
    return UserError(f"torch.export cannot capture {network.name}: {_cause(error)}{_place(error)}; {advice}")


def _hiding_folder(error: Exception) -> str | None:
    """The folder in the working directory that was imported instead of a package, by its name; None for another error.

    The working directory is searched for packages where PYTHONPATH has an empty part, and by `python -c`.
    """
    match = re.search(r"module '(\w+)' has no attribute", str(error))
    module = None if match is None else sys.modules.get(match[1])
    if match is None or module is None or getattr(module, "__file__", None) is not None:
        return None
    places = [Path(place).resolve() for place in getattr(module, "__path__", ())]
    return match[1] if Path.cwd() / match[1] in places else None


CAPTURED = (
    "its captured graph", "write that part of the network without randomness, state, or writes to `.data`"
)  # fmt: skip
FIXED = (
    "it only works for fixed numbers of images, expected any number; torch.export treats len(x) and the number of "
    "parts of x.unbind() as fixed: use x.shape[0]"
)


def compare(name: str, expected: Tensor, logits: Tensor, form: tuple[str, str], most: float = SAME) -> None:
    """Raises UserError if logits (N, classes) differ from `expected` by more than `most` of their spread.

    `form` is the name of what computed `logits` and the advice to the user. The spread is the largest distance from the
    mean over images, but at least a hundredth of the largest logit.
    """
    logits = logits.detach().float()
    spread = (expected - expected.mean(0)).abs().max() if len(expected) > 1 else expected.new_zeros(())
    unit = float(torch.maximum(spread, expected.abs().max() / 100))
    difference = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("nan")
    if not difference <= most * unit:
        source, advice = form
        raise UserError(
            f"{source} answers differently from {name}: logits differ by up to {difference:.2g} on {len(expected)} "
            f"images, expected at most {most * unit:.2g}; {advice}"
        )


def _copied(network: Network) -> nn.Module:
    """A copy on the CPU in eval mode, without compiled wrappers. Raises UserError for TorchScript."""
    for name, part in network.module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            subject = f"its layer {name!r} is" if name else "it is"
            raise UserError(
                f"{network.name} cannot be captured: {subject} TorchScript, expected a torch.nn.Module in Python; give "
                "the module that was scripted or traced, with its weights"
            )
    try:
        with quiet():
            module = copy.deepcopy(Normalised(network))
    except UserError:
        raise
    except Exception as error:  # from the module's own __deepcopy__
        raise UserError(
            f"{network.name} cannot be copied: {first_line(error)}; give a module that copy.deepcopy supports"
        ) from error
    if {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()} == {torch.float64}:
        module = module.float()
    return _eager(module).cpu().eval()


def _eager(module: nn.Module) -> nn.Module:
    """The module itself, with every `torch.compile` in it undone, in place."""
    for submodule in list(module.modules()):
        submodule._compiled_call_impl = None  # what Module.compile() sets
        for name, child in submodule.named_children():
            original = child
            while isinstance(original, torch._dynamo.eval_frame.OptimizedModule):
                original = original._orig_mod
            if original is not child:
                setattr(submodule, name, original)
    return module


def _writes(node: Node) -> bool:
    """Whether a node changes a tensor's values; `detach_`, which starts every tensor made in forward, does not."""
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        and node.target != _aten.detach_.default
    )


def _merge_batch_norms(graph: GraphModule) -> None:
    """Turns batch norms with three outputs, from torch's decomposition, into those with one, in place."""
    for node in list(graph.graph.nodes):
        if node.target != _aten._native_batch_norm_legit_no_training.default:
            continue
        if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
            continue
        *tensors, momentum, epsilon = node.args
        with graph.graph.inserting_before(node):
            single_output = graph.graph.call_function(
                _aten.batch_norm.default, (*tensors, False, momentum, epsilon, False)
            )
        for user in list(node.users):
            single_output.meta = dict(user.meta)
            user.replace_all_uses_with(single_output)
            graph.graph.erase_node(user)
        graph.graph.erase_node(node)
    graph.recompile()


def _check_statistics(name: str, graph: GraphModule) -> None:
    """Raises UserError for a batch norm that uses the statistics of the batch."""
    for node in graph.graph.nodes:
        kind = node.target.overloadpacket.__name__ if isinstance(node.target, torch._ops.OpOverload) else ""
        if node.target == _aten.batch_norm.default and node.args[3] is None:
            raise UserError(
                f"{name} has a batch norm without running statistics (track_running_stats=False), expected "
                "running statistics; train it with them"
            )
        if (node.target == _aten.batch_norm.default and node.args[5]) or (
            kind.startswith(("_native_batch_norm_legit", "_batch_norm_with_update")) and node.target not in BATCH_NORM
        ):
            raise UserError(
                f"{name} has a batch norm that uses the statistics of the batch in eval mode (training=True), expected "
                "running statistics; call it with training=self.training"
            )


def _check_dtypes(name: str, graph: GraphModule) -> None:
    """Raises UserError for a layer that computes in another format than float32, which cannot be rounded."""
    for node in graph.graph.nodes:
        value = node.meta.get("val")
        if node.target in WEIGHTED and isinstance(value, Tensor) and value.dtype != torch.float32:
            raise UserError(
                f"{name} has a layer in {str(value.dtype).removeprefix('torch.')} ({node.name}), expected float32; "
                "call .float() on the network and remove casts in forward"
            )


def _without_writes(name: str, graph: GraphModule) -> None:
    """Removes the writes to buffers and to the input at the end of a functional graph. Raises UserError for others.

    Also raises if the logits depend on a buffer that is written, because they then depend on earlier images.
    """
    for node in list(graph.graph.nodes):
        if node.target == _aten.detach_.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise UserError(
                f"{name} has a block {node.target.name()}, whose layers cannot be rounded; remove it (torch.cond, "
                "torch.autocast or torch.enable_grad in forward)"
            )
        if not _writes(node):
            continue
        source = node.args[0]
        if node.target != _aten.copy_.default or not isinstance(source, Node) or source.op == "call_function":
            raise UserError(
                f"{name} writes in place in a way that cannot be captured ({node.target}); write that part of it "
                "without"
            )
        node.replace_all_uses_with(node.args[1])  # type: ignore[arg-type]
        graph.graph.erase_node(node)
        if source.op == "get_attr" and _reaches_output(source):
            raise UserError(
                f"{name} writes its tensor {str(source.target).removeprefix('network.')!r} on every call and its "
                "logits depend on it, expected equal logits for equal images; do not write it in eval mode"
            )
    graph.recompile()


def _reaches_output(node: Node) -> bool:
    reached, waiting = {node}, [node]
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in reached:
                reached.add(user)
                waiting.append(user)
    return False


def _cause(error: Exception) -> str:
    line = first_line(error)
    if line.startswith("Constraints violated (batch)"):
        return FIXED
    return line


def _place(error: Exception) -> str:
    """The innermost traceback line in the network's own code, or an empty string."""
    libraries = {"torch", "torchao", "sympy", "numpy", *sys.stdlib_module_names}
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module, code = str(frame.f_globals.get("__name__")), frame.f_code
        if module != __name__ and module.partition(".")[0] not in libraries and not code.co_filename.startswith("<"):
            place = f", at {Path(code.co_filename).name}:{line} in {code.co_name}"
    return place
