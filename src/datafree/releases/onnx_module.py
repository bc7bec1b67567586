"""Finishes the module that onnx2torch makes: arguments that are known become part of their layers, and products with weights
become linear layers, so that it can be exported, quantized and trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .onnx_layers import Expand, Scatter
from .onnx_lowering import Lowered

__all__ = ["finished"]


def finished(module: Any, lowered: Lowered) -> nn.Module:
    """The `torch.fx.GraphModule` that `onnx2torch.convert` made of `lowered`, changed in place."""
    graph = module.graph
    pixels = next(node for node in graph.nodes if node.op == "placeholder")
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target in lowered.layers:
            layer = lowered.layers[node.target]
            setattr(module, node.target, layer)
            if not isinstance(layer, Scatter):
                node.args = (node.args[0], pixels) if isinstance(layer, Expand) else (node.args[0],)
            node.kwargs = {}
    for node in list(graph.nodes):
        if node.op == "call_module" and lowered.kinds.get(node.target) == "MatMul":
            _to_linear(module, node, lowered)
    graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    read_weights = {node.target for node in graph.nodes if node.op == "get_attr"}
    if hasattr(module, "initializers"):
        for name in [
            name for name, _ in module.initializers.named_buffers() if f"initializers.{name}" not in read_weights
        ]:
            delattr(module.initializers, name)
    graph.lint()
    module.recompile()
    return module


def _to_linear(module: Any, node: Any, lowered: Lowered) -> None:
    """Replaces a product with a stored matrix, and the sum with a stored vector after it, by a linear layer."""
    weight = _stored(module, node.args[1]) if len(node.args) == 2 else None
    if weight is None or weight.ndim != 2 or not weight.is_floating_point():
        return
    users, bias, total = list(node.users), None, None
    if len(users) == 1 and users[0].op == "call_module" and lowered.kinds.get(users[0].target) == "Add":
        total = users[0]
        others = [argument for argument in total.args if argument is not node]
        bias = _stored(module, others[0]) if len(others) == 1 else None
        bias = bias if bias is not None and tuple(bias.shape) == (weight.shape[1],) else None
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None, device="meta", dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.T.contiguous())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    setattr(module, node.target, layer)
    node.args = (node.args[0],)
    if bias is not None and total is not None:
        total.replace_all_uses_with(node)
        module.graph.erase_node(total)


def _stored(module: Any, node: Any) -> Tensor | None:
    """The weight that a node of the graph gets."""
    if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value if isinstance(value, Tensor) else None
