"""Writes a graph as ONNX once: many tests quantize one network, and each export takes half a second.

A file depends on the graph, its tensors and the exporter's options alone. Only for tests of something else: those of the
exporter itself, and of runs that are repeated to the same bytes, export each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

_WRITTEN: dict[str, bytes] = {}
"""What decides a file's bytes, hashed -> the model."""


@contextmanager
def exported_once() -> Iterator[None]:
    """Inside, torch.onnx.export of a graph that was exported before returns what it returned then."""
    export = torch.onnx.export

    def once(module: Any, images: tuple[torch.Tensor, ...], **options: Any) -> Any:
        key = _key(module, images, options)
        if key is None:
            return export(module, images, **options)
        if key not in _WRITTEN:
            program = export(module, images, **options)
            assert program is not None
            _WRITTEN[key] = program.model_proto.SerializeToString(deterministic=True)
        import onnx

        return SimpleNamespace(model_proto=onnx.ModelProto.FromString(_WRITTEN[key]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


def _key(module: Any, images: tuple[torch.Tensor, ...], options: dict[str, Any]) -> str | None:
    """A hash of the graph's program, nodes and tensors; None for what is more than a graph."""
    if not isinstance(module, GraphModule) or not options.get("dynamo"):
        return None
    if any(image.any() for image in images):
        return None
    digest = hashlib.sha256(repr((sorted(options.items(), key=lambda item: item[0]), _layout(images))).encode())
    for name, part in module.named_modules():
        if part is not module and type(part) not in (nn.Module, GraphModule) and type(part).__name__ != "GuardsFn":
            return None
        digest.update(repr((name, type(part).__name__, part.training, getattr(part, "code", ""))).encode())
        if isinstance(part, GraphModule):
            nodes = [
                (node.op, node.name, str(node.target), str(node.args), str(node.kwargs)) for node in part.graph.nodes
            ]
            digest.update(repr(nodes).encode())
        own = vars(part)
        tensors = {**own["_parameters"], **own["_buffers"]}
        tensors |= {key: value for key, value in own.items() if isinstance(value, torch.Tensor)}
        for key, tensor in sorted(tensors.items()):
            digest.update(repr((key, type(tensor).__name__, tensor is not None and _layout((tensor,)))).encode())
            if tensor is not None:
                digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _layout(tensors: tuple[torch.Tensor, ...]) -> list[tuple[Any, ...]]:
    return [(own.dtype, tuple(own.shape), own.stride(), own.requires_grad) for own in tensors]
