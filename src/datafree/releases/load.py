"""Loads and creates models by name: a zoo name, the user's `file.py:function` or `package.module:function`, or a release."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._core import memory
from .._core.arguments import checked
from .._core.code_names import CodeName, code_name
from .._core.errors import Notice, UserError, cut, nearest, unknown
from .._core.files import is_torch, read_torch_weights, read_weights
from .._core.files.state_dicts import behind
from .._core.folder_kinds import EXPORTED, is_quantized
from .._core.seeds import seed_of
from .._core.user_code import all_files, code_files, function_of, guarded, import_code, running
from ..models import zoo
from ..models.behaviour import check_state
from ..models.input_spec import InputSpec
from ..models.network import PROBES, Network, copied, unwrapped
from ..models.outputs import output_name
from ..models.reducing import take_blocks, take_sizes
from .builder_names import check_name, pack_command
from .library_folders import check_named
from .onnx_import import is_onnx, onnx_files, onnx_network
from .quantized import open_quantized
from .release import Release, check_code, is_release, is_zoo

if TYPE_CHECKING:
    from .libraries import LibraryInput
    from .shipped_code import ShippedCode

__all__ = [
    "all_files", "built_by", "classes_in", "code_files", "load_model", "load_weights", "new_model", "new_student_model",
    "published_input", "published_spec", "published_weights", "read_code", "without_unused_output",
]  # fmt: skip

COUNTERS = ("total_ops", "total_params")
"""Buffers that tools which count a network's operations leave in its state dict."""


@checked
def load_model(
    name: str,
    *,
    code: str | None = None,
    module: nn.Module | None = None,
    weights: str | Path | None = None,
    key: str | None = None,
    spec: InputSpec | None = None,
    output: str | int | None = None,
    trust: bool = False,
) -> Network:
    """A trained network in eval mode, on the CPU. Import paths come from `name` or `code`, never from inside a file.

    - `name`: a release folder, which brings spec and weights; a quantized folder, which is opened through onnxruntime; or a
      name of the zoo, `file.py:function` or `package.module:function` with `weights` and `spec`; for `timm:NAME` and
      `torchvision:NAME`, the spec is by default that of their published weights, with the classes of the file;
      `transformers:FOLDER` and `timm:./FOLDER`, with the folder's weights and by default its spec; or an ONNX file, which
      has its weights and states the shape of its images and the number of classes.
    - `code`: for a release of a custom network, the `file.py:function` that builds it, or the ONNX file that it was made
      from.
    - `module`: instead of `code`, a module of that architecture with any weights: `load_model("mine", module=MyNet())`. It
      is copied and keeps its weights.
    - `weights`: a file of weights to use instead of the release's own: safetensors, or what `torch.save` writes, of which
      no code is run. In a file of several networks, `key` names the one to use, with `/` between nested keys.
    - `output`: which of several tensors that the network returns are the logits; see `Network`. A release has its own.
    - `trust`: run the code that a release holds in its folder `code`, as its config.json names it: read it first. Its files
      must have the hashes of config.json. Without effect on a release without code.

    Names of weights may have a prefix in front, such as `module.` or `model.`, and floating-point weights may be of another
    precision than the network's. Raises UserError if something is missing or damaged, if weights and architecture do not
    fit, and if the network gives other logits than its publisher's.
    """
    release, expected = None, spec
    if key is not None and weights is None:
        raise UserError("key: got it without `weights`, expected a file of weights that has it; leave it out")
    if module is not None and code is not None:
        raise UserError("module: got it beside code, expected one of them to build the network; leave one out")
    if trust and (code is not None or module is not None):
        raise UserError(
            f"trust: got it beside {'code' if module is None else 'module'}, expected one of them to build the network; "
            "leave one out"
        )
    sources = None
    if is_release(name):
        if is_quantized(name):
            if module is not None:
                raise UserError(
                    f"module: got it with {name}, a quantized folder, which holds its whole network; leave it out"
                )
            _check_output(output, None, name)
            quantized = open_quantized(name)
            _check_spec(expected, quantized.spec, name)
            return quantized
        release = Release.open(name)
        _check_spec(expected, release.spec, name)
        _check_output(output, release.output, name)
        output = release.output
        spec, path = release.spec, weights or release.weights
        if module is not None:
            return _with_weights(
                Network(module, release.spec, release.public_name, output=output, reduced=release.reduced),
                path,
                key,
                release if weights is None else None,
            )
        sources = release.code() if trust and release.listed_code is not None else None
        architecture = code or (release.architecture() if sources is None else sources.call)
    else:
        if module is not None:
            raise UserError(
                f"module: got it with {cut(name)!r}, expected a release folder, which holds weights and spec; give its "
                "path, or use Network(module, ...)"
            )
        if code is not None:
            raise UserError(
                f"code: got {cut(code)} with {cut(name)!r}, expected a release folder, whose network it builds; leave it out"
            )
        if is_onnx(name):
            return _from_onnx(name, weights, spec, output)
        if Path(name).suffix in EXPORTED and os.path.isfile(name):
            raise UserError(f"{name} is one file of a quantized network, expected its folder; give {Path(name).parent}")
        check_name(name)
        weights = published_weights(name) if weights is None else weights
        if weights is None and code_name(name) is None and not is_zoo(name):
            raise zoo.no_model(name)
        if weights is None:
            raise UserError(
                f"model {name!r} has no weights; give a release folder, or `weights='FILE'` beside the model"
            )
        spec = spec or published_spec(name, weights, key)
        if spec is None:
            raise UserError(
                f"model {name!r} comes without a spec; make a release of it: {pack_command(name, weights, output)}"
            )
        architecture, path = name, weights
    assert spec is not None
    tensors = _read(path, key)
    if is_onnx(architecture):
        network = replace(onnx_network(architecture, spec), output=output)
        builder = None
    else:
        builder = code_name(architecture)
        if builder is not None and builder.place == "transformers":
            tensors = _named_as_built(architecture, builder, spec, tensors)
        reduced = release is not None and release.reduced
        network = _for_weights(architecture, spec, tensors, path, key, output, sources, reduced=reduced)
    if release is not None:
        network = replace(network, reduced=release.reduced)
    _load(network, tensors, path, key)
    network.module.eval()
    with _guarded(architecture, builder, sources), torch.sparse.check_sparse_tensor_invariants():
        network.check()  # also positions of sparse tensors, which torch otherwise uses unchecked
        if output is not None and release is None:
            _check_several(network)
        if release is not None and release.custom and weights is None:
            check_code(release, network)
    return network


def _from_onnx(name: str, weights: str | Path | None, spec: InputSpec | None, output: str | int | None) -> Network:
    """The checked network in an ONNX file, which has its own weights."""
    if weights is not None:
        raise UserError(f"weights: got {cut(weights)} with {name}, which has its own; leave them out")
    if output is not None:
        raise UserError(f"output: got {output_name(output)!r} with {name}, which has one output; leave it out")
    network = onnx_network(name, spec)
    network.check()
    return network


def _named_as_built(name: str, code: CodeName, spec: InputSpec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    from .transformers_folder import named_as_built

    with guarded(name, code):
        return named_as_built(code.attribute, spec, tensors)


def _for_weights(
    architecture: str,
    spec: InputSpec,
    tensors: dict[str, Tensor],
    path: str | Path,
    key: str | None,
    output: str | int | None,
    sources: ShippedCode | None,
    *,
    reduced: bool,
) -> Network:
    """A network of the zoo or of code, of its full size, after checking that the weights in `path` fit one of the zoo."""
    check_name(architecture)
    if code_name(architecture) is None:  # before its weights are allocated: a few bytes of text can name 40 GB
        module = zoo.on_meta(architecture, spec)
        named = named_as_in(module.state_dict(), tensors, path, key)
        if reduced:
            take_blocks(module, named)
            take_sizes(module, {name: tensor.shape for name, tensor in named.items()})
        _check_weights(architecture, module.state_dict(), named, path)
    return _built(architecture, spec, seed=0, output=output, sources=sources)


def _check_spec(argument: InputSpec | None, spec: InputSpec, name: str) -> None:
    """Raises UserError for a spec that differs from that of the release."""
    if argument is None or argument == spec:
        return
    field = next(field for field in type(spec).model_fields if getattr(argument, field) != getattr(spec, field))
    raise UserError(
        f"spec: got another {field} ({cut(getattr(argument, field))}) than {name} has, expected "
        f"{cut(getattr(spec, field))}; leave `spec` out, since a release has its own"
    )


def _check_output(argument: str | int | None, output: str | None, name: str) -> None:
    """Raises UserError for another output than that of the release."""
    if argument is not None and output_name(argument) != output:
        has = "none" if output is None else repr(output)
        raise UserError(
            f"output: got {output_name(argument)!r}, expected that of {name}, which has {has}; leave it out, since a "
            "release has its own"
        )


def _check_several(network: Network) -> None:
    """Raises UserError for an output that was chosen without need."""
    if isinstance(network.outputs_on_probes(), Tensor) and not network.has_output():
        raise UserError(
            f"output: got {network.output!r}, expected none, since {network.name} returns a tensor alone; leave it out"
        )


def _with_weights(user_network: Network, path: str | Path, key: str | None, release: Release | None) -> Network:
    """A copy of the user's network with the weights in `path`. Checks that it gives the logits of `release`'s publisher."""
    network = user_network.with_module(copied(unwrapped(user_network.module)).cpu())
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in network.module.parameters()):
        _first_pass(network)
    _load(network, _read(path, key), path, key)
    network.module.eval()
    with torch.sparse.check_sparse_tensor_invariants():
        network.check()
        if release is not None:
            check_code(release, network)
    return network


@checked
def new_model(name: str, spec: InputSpec, *, seed: int, output: str | int | None = None) -> Network:
    """A new network for `spec`, with random weights that depend only on the seed.

    `name` is a zoo name, or a `file.py:function` or `package.module:function` that returns a module. The function, or class,
    is called with the InputSpec if it has a parameter named `spec` or annotated as InputSpec, and with the arguments in the
    name, `net.py:build(width=8)`. `timm:NAME` and `torchvision:NAME` are networks of these packages, for the spec's classes
    and channels. `output` is which of several tensors that the network returns are the logits; see `Network`.
    Raises UserError if there is no such function, or if it fails.
    """
    network = _built(name, spec, seed=seed, output=output)
    with _guarded(name, code_name(name)):
        network.check()
    return network


def new_student_model(name: str, teacher: Network, *, seed: int) -> Network:
    """`new_model` for the teacher's spec; with the teacher's output where the new network has one of that name."""
    network = without_unused_output(_built(name, teacher.spec, seed=seed, output=teacher.output))
    with _guarded(name, code_name(name)):
        network.check()
    return network


def without_unused_output(network: Network) -> Network:
    """The network, without its output if it returns none of that name in eval or training mode."""
    if network.output is None or network.has_output():
        return network
    return replace(network, output=None)


def built_by(sources: ShippedCode, user_network: Network, weights: dict[str, Tensor]) -> Network:
    """The network in eval mode that the code of a release builds, with these weights, and spec and output of the user's.

    Raises UserError if the code fails, or the weights do not fit.
    """
    network = _built(sources.call, user_network.spec, seed=0, output=user_network.output, sources=sources)
    network = replace(network, reduced=user_network.reduced)
    _load(network, weights, "the network")
    network.module.eval()
    return network


def _built(
    name: str, spec: InputSpec, *, seed: int, output: str | int | None, sources: ShippedCode | None = None
) -> Network:
    """`new_model` before its answers are checked. Lazy layers have taken their size from a grey batch."""
    if is_release(name):
        check_named(name)
        raise UserError(
            f"{name} is a trained release, expected a new network; name an architecture of the zoo or your own"
        )
    check_name(name)
    code = code_name(name)
    if code is None:
        _check_memory(name, spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", name))
        module = zoo.build(name, spec) if code is None else _function(name, code, sources)(spec)
        if not isinstance(module, nn.Module):
            raise UserError(
                f"{name!r} returned {type(module).__name__}, expected a torch.nn.Module; return the network"
            )
        network = Network(module, spec, name, output=output)
        if any(torch.nn.parameter.is_lazy(parameter) for parameter in network.module.parameters()):
            with _guarded(name, code, sources):
                _first_pass(network)
        elif code is not None:
            with suppress(Exception):  # reported by Network.check
                _first_pass(network)
    return network


@torch.no_grad()
def _first_pass(network: Network) -> None:
    """One forward pass in eval mode, in which some networks create lazy layers and buffers."""
    module, spec = network.module, network.spec
    try:
        module.eval()  # not with `frozen`, which needs all weights to exist
        network.logits(torch.full((2, *spec.shape), (spec.low + spec.high) / 2))
    finally:
        module.train()


def published_weights(name: str) -> Path | None:
    """The file of weights in the folder of `transformers:FOLDER` or `timm:./FOLDER`; None for other names.

    Raises UserError for a folder without weights, and for a folder of timm without a slash in its name.
    """
    code = code_name(name)
    if code is not None and code.place == "timm" and not code.is_folder:
        from .libraries import check_no_folder

        check_no_folder(code.attribute)
    if code is None or not code.is_folder:
        return None
    from .library_folders import weights_of

    return weights_of(code.attribute)


def published_input(name: str) -> LibraryInput | None:
    """What the published weights of a network of timm, torchvision or transformers take; None for other networks."""
    code = code_name(name)
    if code is None or not code.is_library:
        return None
    from .libraries import input_of

    code.check()
    with guarded(name, code):
        return input_of(code)


def published_spec(name: str, weights: str | Path, key: str | None = None) -> InputSpec | None:
    """The spec of a network of a library: its published input, and the classes of the weights in a file; None for other
    networks.
    """
    published = published_input(name)
    if published is None:
        return None
    count = classes_in(name, published.shape, weights, key) or published.classes
    classes = published.names if len(published.names) == count else tuple(map(str, range(count)))
    return InputSpec(shape=published.shape, classes=classes, mean=published.mean, std=published.std)


def classes_in(name: str, shape: tuple[int, int, int], path: str | Path, key: str | None = None) -> int | None:
    """Number of classes of the weights in a file, for a network of a library; None if they do not fit it.

    It is the number of rows of the first weight whose size follows the number of classes.
    """
    code = code_name(name)
    assert code is not None
    state, wider = (
        _from_library(name, code, InputSpec(shape=shape, classes=tuple(map(str, range(count))))).state_dict()
        for count in (2, 3)
    )
    layer = next((name for name in state if state[name].shape != wider[name].shape), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # load_model repeats them
        tensors = named_as_in(state, _read(path, key), path)
    return int(tensors[layer].shape[0]) if layer in tensors and tensors[layer].ndim else None


def load_weights(network: Network, path: str | Path, *, key: str | None = None) -> None:
    """Loads a file of weights into the network, as `load_model` does. Raises UserError unless names and shapes fit."""
    _load(network, _read(path, key), path, key)
    check_state(network)


def _read(path: str | Path, key: str | None) -> dict[str, Tensor]:
    """The tensors of a safetensors or torch file."""
    if is_torch(path):
        return read_torch_weights(path, key=key)
    tensors = read_weights(path)
    return tensors if key is None else behind(key, tensors, str(path))


def _load(network: Network, tensors: dict[str, Tensor], path: str | Path, key: str | None = None) -> None:
    state = network.module.state_dict()
    if any(isinstance(tensor, Tensor) and tensor.layout != torch.strided for tensor in state.values()):
        check_state(network)  # raises: dense tensors cannot be copied into sparse ones
    shared = {name for group in _tied(network) for name in group}
    tensors = named_as_in({name: state[name] for name in state if name not in shared} or state, tensors, path, key)
    if network.reduced:
        take_blocks(network.module, tensors)  # before tensors get the names of those that they are shared with
        state = network.module.state_dict()
    tensors = _untied(network, tensors, path)
    tensors = _without_unused(network.module, state, tensors)
    if network.reduced:
        take_sizes(network.module, {name: tensor.shape for name, tensor in tensors.items()})
        state = network.module.state_dict()
    _check_weights(network.name, state, tensors, path)
    network.module.load_state_dict({**state, **_cast(state, tensors, path)})


def _without_unused(module: nn.Module, state: Mapping[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without buffers that the network computes itself, and without counters of operations (thop)."""
    computed = {name for name, _ in module.named_buffers()} - state.keys()
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name in state or (name not in computed and name.rpartition(".")[2] not in COUNTERS)
    }


def _cast(state: Mapping[str, Any], tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The weights in the network's floating-point formats. Raises UserError for a value beyond their range."""
    cast = {name: tensor.to(state[name].dtype) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if cast[name].dtype != tensor.dtype and not torch.equal(cast[name].isfinite(), tensor.isfinite()):
            raise UserError(
                f"weight {name!r} in {path} exceeds the range of {state[name].dtype}, which the network has; expected "
                "smaller values; use weights of this architecture"
            )
    return cast


def named_as_in(
    state: Mapping[str, Any], tensors: dict[str, Tensor], path: str | Path, key: str | None = None
) -> dict[str, Tensor]:
    """The weights with the names of a network's `state`, if all of these occur in the file behind one prefix.

    Such prefixes come from data-parallel training (`module.`), from `torch.compile` (`_orig_mod.`), and from training
    frameworks that hold the network in an attribute (`model.`). Weights without the prefix are left out, with a `Notice`.
    Raises UserError if several prefixes fit; `key` is the one that the weights were read with.
    """
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    if not names or names[0] in tensors:
        return tensors
    starts = [name.removesuffix(names[0]) for name in tensors if name.endswith(f".{names[0]}")]
    prefixes = [start for start in starts if all(f"{start}{name}" in tensors for name in names)]
    if len(prefixes) > 1:
        prefixes = [
            start for start in prefixes if all(tensors[f"{start}{name}"].shape == state[name].shape for name in names)
        ]
    if not prefixes:
        return tensors
    if len(prefixes) > 1:
        starts = ", ".join(repr(cut(start)) for start in prefixes[:5])
        raise UserError(
            f"{path} holds these weights behind {starts}, expected one of them; choose it, such as "
            f"`key={'/'.join(filter(None, (key, prefixes[0].removesuffix('.'))))!r}`"
        )
    rest = [name for name in tensors if not name.startswith(prefixes[0])]
    if rest:
        message = (
            f"{path} holds the weights behind {prefixes[0]!r}; its other {len(rest)} tensors, such as {cut(rest[0])!r}, "
            "are not used"
        )
        warnings.warn(Notice(message), stacklevel=2)
    return {name.removeprefix(prefixes[0]): tensor for name, tensor in tensors.items() if name.startswith(prefixes[0])}


def _tied(network: Network) -> list[list[str]]:
    """The names of each tensor that has several."""
    names: dict[int, list[str]] = {}
    for pairs in (network.module.named_parameters, network.module.named_buffers):
        for name, tensor in pairs(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _untied(network: Network, tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """The weights under all names of tensors that the network shares: a file may have only one of the names.

    Raises UserError if the file has different values for a shared tensor.
    """
    complete = dict(tensors)
    for tied in _tied(network):
        present = next((name for name in tied if name in tensors), None)
        if present is None:
            continue
        for name in [name for name in tied if name in tensors]:
            if tensors[name].shape == tensors[present].shape and not torch.equal(tensors[name], tensors[present]):
                raise UserError(
                    f"{name!r} and {present!r} are one tensor in {network.name}, and two different ones in {path}; use "
                    "weights of this architecture"
                )
        complete |= {name: tensors[present] for name in tied if name not in tensors}
    return complete


def _check_weights(network: str, state: dict[str, Any], tensors: dict[str, Tensor], path: str | Path) -> None:
    """Raises UserError unless the `tensors` in `path` have the names, shapes and dtypes of a network's `state`."""
    counters = {
        name for name in state if name.endswith("num_batches_tracked")
    }  # absent in older files; not used in eval
    for name in sorted(state.keys() - tensors.keys() - counters):
        raise UserError(f"{path} has no weight {name!r} of {network}; {nearest(name, tensors)}")
    for name in sorted(tensors.keys() - state.keys()):
        raise unknown("weight", name, state, network)
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            raise UserError(
                f"weight {name!r} in {path} is {tuple(tensor.shape)}, expected {tuple(state[name].shape)} for {network}; "
                "use the weights of this architecture and input size"
            )
        if tensor.dtype != state[name].dtype and not (tensor.is_floating_point() and state[name].is_floating_point()):
            raise UserError(
                f"weight {name!r} in {path} is {tensor.dtype}, expected {state[name].dtype}; use weights in that "
                "number format"
            )


def _check_memory(name: str, spec: InputSpec) -> None:
    """Raises UserError for a zoo network whose weights, or activations of the probe images, cannot fit in memory."""
    module = zoo.on_meta(name, spec)
    weights = 4 * sum(parameter.numel() for parameter in module.parameters())
    available = memory.available()
    if available is None or weights + 8 * PROBES * _most_outputs(module, spec) <= available:
        return
    # if the weights alone are too large, stop here: under a limit torch's compiler may not load in the remaining memory
    needed = weights if weights > available else weights + 8 * _largest_output(module, spec)
    if needed > available:
        raise UserError(
            f"{name} for images {spec.shape} needs {needed:,} bytes, expected at most the {available:,} of memory "
            "available; give a smaller network or smaller images"
        )


def _most_outputs(module: nn.Module, spec: InputSpec) -> int:
    """An upper bound of the values in the largest output for one image: no zoo network has maps larger than the image."""
    area = spec.shape[1] * spec.shape[2]
    convolutions = (part.out_channels * area for part in module.modules() if isinstance(part, nn.Conv2d))
    linears = (part.out_features for part in module.modules() if isinstance(part, nn.Linear))
    return max(*convolutions, *linears, spec.pixels)


def _largest_output(module: nn.Module, spec: InputSpec) -> int:
    """Number of values in the largest output for the probe images. The first call in a process imports torch's compiler,
    which takes two seconds.
    """
    sizes = [0]
    for part in module.modules():
        part.register_forward_hook(lambda *hook_arguments: sizes.append(hook_arguments[2].numel()))
    with torch.no_grad(), suppress(RuntimeError):  # images of a wrong shape are reported by Network.check
        module.eval()(torch.empty(PROBES, *spec.shape, device="meta"))
    return max(sizes)


def _function(name: str, code: CodeName, sources: ShippedCode | None) -> Callable[..., Any]:
    """The user's function, called with its arguments, and with the InputSpec if it has a parameter for it."""
    code.check()
    if code.is_library:
        return partial(_from_library, name, code)
    if sources is not None:
        function = sources.function()
    else:
        function = function_of(import_code(code), code)
    if isinstance(function, nn.Module):
        raise UserError(
            f"{name} is a network that is built already, expected the function or class that builds it; write a function "
            "that returns it"
        )
    keywords = code.keywords()
    parameter = _spec_parameter(name, function, keywords)

    def call(spec: InputSpec) -> Any:
        note = ", called with the InputSpec" if parameter is not None else ""
        with running(name, code, note) if sources is None else sources.running(note):
            if parameter is None:
                return function(**keywords)
            return function(spec, **keywords) if parameter == "" else function(**{parameter: spec}, **keywords)

    return call


def _from_library(name: str, code: CodeName, spec: InputSpec) -> nn.Module:
    from .libraries import build

    with guarded(name, code):
        return build(code, spec)


def _spec_parameter(name: str, function: Callable[..., Any], keywords: Mapping[str, Any]) -> str | None:
    """The parameter that gets the InputSpec: "" for the first, which has no name, another by its name, None for none.

    It is the one named `spec` or annotated as InputSpec. Raises UserError if others are required that `keywords` lack, and
    for keywords that the function does not have.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of compiled code
        return None
    kinds = inspect.Parameter
    by_keyword = [
        parameter for parameter in parameters if parameter.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    ]
    names = {parameter.name for parameter in by_keyword}
    takes_any = any(parameter.kind is kinds.VAR_KEYWORD for parameter in parameters)
    for keyword in keywords:
        if keyword not in names and not takes_any:
            raise unknown("argument", keyword, names, name)
    chosen = next(
        (
            parameter
            for parameter in parameters
            if parameter.kind is not kinds.VAR_KEYWORD
            and parameter.kind is not kinds.VAR_POSITIONAL
            and parameter.name not in keywords
            and (parameter.name == "spec" or _is_spec(parameter.annotation))
        ),
        None,
    )
    variable = (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is kinds.empty and parameter.kind not in variable and parameter.name not in keywords
    ]
    missing = [parameter for parameter in required if chosen is None or parameter != chosen.name]
    if missing:
        call = f"{name.partition('(')[0]}({missing[0]}=VALUE)"
        raise UserError(
            f"{name} needs the argument {missing[0]!r}, expected a value for it; name it '{call}', or give it a default "
            "or, if it is the InputSpec, the name 'spec'"
        )
    if chosen is None:
        return None
    return "" if chosen.kind is kinds.POSITIONAL_ONLY else chosen.name


def _is_spec(annotation: Any) -> bool:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return text.rpartition(".")[2] == "InputSpec"


def _guarded(name: str, code: CodeName | None, sources: ShippedCode | None = None) -> AbstractContextManager[None]:
    """`guarded` for a network from the user's code, `running` for one from a release's; no context for one of the zoo."""
    if sources is not None:
        return sources.running()
    return nullcontext() if code is None else guarded(name, code)


def read_code(name: str) -> list[Path]:
    """The files of the code `file.py:function` or `package.module:function`, which is imported to find them, or of an ONNX
    file.
    """
    if is_onnx(name):
        return [Path(name), *onnx_files(name)]
    code = code_name(name)
    assert code is not None
    code.check()
    import_code(code)
    return all_files(code)
