"""Whether a network answers an image by the image alone: the same each time, in any batch, and without changing itself.

Fingerprints, records and checks of files rest on that. And whether gradients come through it, where something is to learn.
"""

from __future__ import annotations

import random as random_module
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .._core.errors import Notice, UserError
from .modes import modes_kept

if TYPE_CHECKING:
    from .network import Network

__all__ = ["check_answers", "check_finite", "check_learns", "check_pixel_gradient", "check_state", "say_probabilities"]

ORDER = (3, 0, 9, 14)
"""Some of the probes, in another order than theirs."""
ALONE = 3
"""How many of them are shown alone."""
MANY = 130
"""Images of the one large batch, more than `predict` takes at a time on a CPU; fewer where they are large."""
ROOM = 1 << 19
"""Pixels that the large batch has at most, unless the probes alone have more."""
SUM = 1e-2
"""How far from 1 the sum of an image's probabilities may be, in bfloat16."""
REPEATS = 30
"""More calls of a network that draws random numbers and has answered alike so far."""
SAME, ALIKE, COARSE = 1e-4, 0.02, 0.25
"""Differences allowed, as a share of the logits' spread: of equal calls, of batches, the same in half precision."""
STEPPED = 0.1
"""The share of rows that may lie on the other side of a step."""
STEPS = (
    "round", "floor", "ceil", "trunc", "quantize", "sign", "heaviside", "bucketize", "argmax", "argmin", "topk", "sort",
)  # fmt: skip
"""Operators whose results jump: their names hold one of these."""
RANDOM = ("dropout", "bernoulli", "rand", "normal", "uniform", "exponential", "multinomial", "poisson", "geometric")
HALF = (torch.float16, torch.bfloat16)


def check_state(network: Network) -> None:
    """Raises UserError for weights that are no finite tensors of numbers, before one of them is used."""
    for name, tensor in network.module.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.is_quantized:
            raise UserError(
                f"{network.name} holds packed weights ({name!r}), as torch's quantized modules do, wanted plain tensors; "
                "give the network in float and quantize it with `datafree quantize`"
            )
        if torch.nn.parameter.is_lazy(tensor):
            raise UserError(
                f"weight {name!r} of {network.name} has no size yet, as in torch's lazy layers; show it one batch first"
            )
        if tensor.is_meta:
            raise UserError(
                f"weight {name!r} of {network.name} is on the meta device, without values; load its weights"
            )
        if tensor.layout != torch.strided:
            raise UserError(
                f"weight {name!r} of {network.name} is {tensor.layout}, wanted a dense tensor; call to_dense()"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"weight {name!r} of {network.name} has NaN or infinity; use weights that are finite")


def check_finite(name: str, logits: Tensor, start: int = 0) -> None:
    """Raises UserError where rows of logits (N, classes) have NaN or infinity: such an answer is no class.

    `start` is the number of the first row's image.
    """
    wrong = ~logits.isfinite()
    bad = wrong.flatten(1).any(1)
    if bool(bad.any()):
        if bool((logits[wrong] == -torch.inf).all()) and bool((wrong == wrong[0]).all()):
            raise UserError(
                f"the logits of {name} are -inf for {int(wrong[0].sum())} of {logits.shape[1]} classes on every image, as "
                "where classes are masked, wanted finite logits; mask them with a finite number, such as -1e4"
            )
        raise UserError(
            f"the logits of {name} are not finite on {int(bad.sum()):,} of {start + len(logits):,} images, the first of "
            f"them image {start + int(bad.nonzero()[0]):,} (counted from 0); use weights that give finite logits, and no "
            "images on which its forward divides by 0, such as blank ones where it standardises each"
        )


def say_probabilities(name: str, answers: Tensor) -> None:
    """A `Notice` where answers (N, classes) to the probes are probabilities, as behind a softmax, and no logits.

    Of one that answers all of them alike nothing can be told.
    """
    sums, several = (answers.sum(1) - 1).abs(), answers.shape[1] > 1 and not bool((answers == answers[0]).all())
    if several and float(answers.min()) >= 0 and float(sums.max()) < SUM:
        warnings.warn(
            Notice(
                f"the outputs of {name} are probabilities (from 0, with a sum of 1 for each probe image), expected logits, "
                "from which students and images learn far more; give it without the softmax at its end"
            ),
            stacklevel=3,
        )


@torch.no_grad()
def check_answers(network: Network, probes: Tensor, answers: Tensor) -> None:
    """Raises UserError where other calls answer the probes otherwise than `answers` (N, classes), naming the reason.

    Of a network that rounds or chooses (int8, half precision, routing) a few answers may lie on the other side of a step in
    another batch: of its rows one in ten may differ. Any other network is refused for one row.
    """
    few = probes[list(ORDER)]
    cuda = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        before, drawn = _state(network), _generators()
        first = _answer(network, few)
        random = _generators() != drawn
        again = [_answer(network, few) for _ in range(REPEATS if random else 1)]
        changed = _changed(before, _state(network))
        alone = torch.cat([_answer(network, few[row : row + 1]) for row in range(ALONE)])
        _compare(network, few, answers[list(ORDER)], first, again, alone)
        _compare_many(network, probes, answers)
        if changed is not None:
            raise UserError(
                f"{network.name} changes its own {changed!r} when it answers, wanted one that stays as it is in eval mode; "
                f"{_training(network, few) or 'change it in training alone'}"
            )


def _compare(network: Network, few: Tensor, answers: Tensor, first: Tensor, again: list[Tensor], alone: Tensor) -> None:
    spread, size = float((answers - answers.mean()).abs().max()), float(answers.abs().max())
    apart = max(float((own - first).abs().max()) for own in again)
    if not apart <= SAME * spread + 1e-5 * size:
        raise UserError(
            f"{network.name} answers the same images differently each time (logits by up to {apart:.2g}), wanted the same "
            f"answers in eval mode; {_why_random(network, few)}"
        )
    for other, expected in ((first, answers), (alone, answers[:ALONE])):
        _check_apart(network, few, answers, (other - expected).abs().amax(1))


def _check_apart(network: Network, few: Tensor, answers: Tensor, apart: Tensor) -> None:
    """Raises UserError where the logits of a row in another batch are `apart` by more than rounding can make them."""
    spread, size = float((answers - answers.mean()).abs().max()), float(answers.abs().max())
    limit = ALIKE * spread + 1e-4 * size
    if float(apart.max()) <= limit:
        return
    middle, beyond = float(apart.median()), float((apart > limit).double().mean())
    watched = _watched(network, few)
    if (watched.steps or watched.half) and middle <= limit and (beyond <= STEPPED or len(apart) < 1 / STEPPED):
        return
    if watched.half and middle <= COARSE * spread + 1e-2 * size:
        return
    raise UserError(
        f"{network.name} answers an image otherwise beside other images (logits by up to {float(apart.max()):.2g}), wanted "
        f"answers that do not depend on the batch; {_why_batch(network, few)}"
    )


def _compare_many(network: Network, probes: Tensor, answers: Tensor) -> None:
    """All probes in another order, each several times, in one large batch: for who sorts it, or changes with its size."""
    count = max(len(probes), min(MANY, ROOM // network.spec.pixels))
    rows = (5 * torch.arange(count) + 3) % len(probes)  # no probe in its own place
    apart = (_answer(network, probes[rows]) - answers[rows]).abs().amax(1)
    _check_apart(network, probes[list(ORDER)], answers, apart)


def check_pixel_gradient(network: Network, method: str) -> None:
    """Raises UserError unless a gradient comes through the network to its images, which `method` needs."""
    from .network import frozen

    with torch.random.fork_rng([]), torch.enable_grad(), frozen(network.module):
        leaf = network.probes()[list(ORDER)].to(network.device).requires_grad_()
        logits = network.logits(leaf)
        if not logits.requires_grad:
            raise UserError(
                f"no gradient comes through {network.name} to its images, which {method} needs; {_cut(logits)}"
            )
        weights = torch.linspace(1, 2, logits[0].numel(), device=logits.device, dtype=logits.dtype)
        (gradient,) = _gradient(network, (logits * weights).sum(), [leaf])
    if gradient is None or not bool(gradient.any()):
        raise UserError(
            f"the gradient that comes through {network.name} to its images is zero, and {method} needs one; leave out what "
            "rounds or detaches within its forward"
        )


def check_learns(network: Network) -> None:
    """Raises UserError unless the loss reaches at least one weight of the network with a gradient."""
    try:
        _check_learns(network, training=False)
    except UserError:  # some layers, as of LoRA, have weights that learn in training mode alone
        state = {name: tensor.detach().clone() for name, tensor in network.module.state_dict().items()}
        try:
            _check_learns(network, training=True)
        except Exception:
            learns = False
        else:
            learns = True
        finally:
            network.module.load_state_dict(state)
        if not learns:
            raise


def _check_learns(network: Network, *, training: bool) -> None:
    with torch.random.fork_rng([]), torch.enable_grad(), modes_kept(network.module):
        network.module.train(training)
        weights = [own for own in network.module.parameters() if own.requires_grad]
        if not weights:
            raise UserError(
                f"{network.name} has no weights that can learn, wanted some; call requires_grad_(True) on it, or take a "
                "network with weights"
            )
        logits = network.logits(network.probes()[list(ORDER)].to(network.device))
        if not logits.requires_grad:
            raise UserError(
                f"no gradient comes through {network.name} to its weights, so it cannot learn; {_cut(logits)}"
            )
        gradients = _gradient(network, logits.sum(), weights)
    if all(own is None for own in gradients):
        raise UserError(f"no gradient comes through {network.name} to its weights, so it cannot learn; {_cut(logits)}")


def _gradient(network: Network, total: Tensor, leaves: list[Any]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(total, leaves, allow_unused=True)
    except RuntimeError as error:
        raise UserError(
            f"gradients of {network.name} cannot be computed: {str(error).splitlines()[0][:160]}; write the operation out "
            "of place"
        ) from None


def _cut(logits: Tensor) -> str:
    inference = " under torch.inference_mode" if logits.is_inference() else ""
    reason = inference or " under torch.no_grad, detaches, or turns numbers into integers"
    return f"its forward runs{reason}; leave that out of it"


def _answer(network: Network, images: Tensor) -> Tensor:
    """Logits of one batch; raises UserError where the network takes no batch of that size."""
    try:
        logits = network.predict(images, batch=len(images))
    except (RuntimeError, ValueError, IndexError) as error:
        why = _batch_norms(network, images) or "make it work for any number of images"
        raise UserError(
            f"{network.name} does not take {len(images)} image{'s' * (len(images) > 1)} at a time: "
            f"{str(error).splitlines()[0][:160]}; {why}"
        ) from None
    return logits


def _state(network: Network) -> dict[str, Any]:
    """Persistent buffers, and two sums of each weight, which may be large."""
    buffers = {id(buffer) for buffer in network.module.buffers()}
    summary: dict[str, Any] = {}
    for name, value in network.module.state_dict(keep_vars=True).items():
        if id(value) in buffers:
            summary[name] = value.detach().clone()
        elif isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
            weight = value.detach()
            summary[name] = torch.stack([weight.sum(dtype=torch.float64), weight.norm(dtype=torch.float64)])
    return summary


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    return next(
        (name for name, value in after.items() if name in before and not torch.equal(before[name], value)), None
    )


def _generators() -> dict[str, Any]:
    """The states of the random generators that a forward pass may draw from."""
    _, key, place, *_ = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy.random": (key.tobytes(), place),  # type: ignore[union-attr]
        "random": random_module.getstate(),
    }


def _why_random(network: Network, few: Tensor) -> str:
    watched = _watched(network, few)
    if names := [name for name, kind in watched.training.items() if "Drop" in kind]:
        return f"dropout {', '.join(map(repr, names[:3]))} stays active; leave its training mode to the caller"
    if watched.random:
        functions = ", ".join(sorted(watched.random)[:3])
        return (
            f"its forward draws random numbers ({functions}); give F.dropout training=self.training, and noise likewise"
        )
    if why := _training(network, few):
        return why
    before = _generators()
    _answer(network, few)
    if drawn := [name for name, state in _generators().items() if state != before[name]]:
        return f"its forward draws random numbers ({drawn[0]}); do so in training mode alone"
    return "its forward keeps something from one call to the next; change nothing in eval mode"


def _why_batch(network: Network, few: Tensor) -> str:
    if why := _batch_norms(network, few):
        return why
    if random := sorted(_watched(network, few).random):
        return (
            f"its forward draws random numbers ({', '.join(random[:3])}) from a seed that it sets itself; give F.dropout "
            "training=self.training, and noise likewise"
        )
    return "use no statistics of the batch, and no order of the images, in eval mode"


def _batch_norms(network: Network, few: Tensor) -> str:
    """Which batch norms use the batch's statistics in eval mode; empty for none."""
    modules = network.module.named_modules()
    untracked = [
        repr(name)
        for name, part in modules
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is None
    ]
    if untracked:
        return (
            f"batch norm {', '.join(untracked[:3])} keeps no running statistics; train it with track_running_stats=True"
        )
    return _training(network, few)


def _training(network: Network, few: Tensor) -> str:
    """What runs in training mode although the network is in eval mode; empty for nothing."""
    watched = _watched(network, few)
    if names := [repr(name) for name, kind in watched.training.items() if "Norm" in kind]:
        return f"batch norm {', '.join(names[:3])} runs in training mode; leave its training mode to the caller"
    if watched.norms:
        return "its forward calls F.batch_norm with training=True; give it training=self.training"
    if watched.training:
        name = next(iter(watched.training))
        return f"its forward puts {name or 'itself'!r} into training mode; leave its training mode to the caller"
    return ""


class _watched(TorchDispatchMode):
    """What a forward pass in eval mode does: random functions, half precision, steps, batch statistics, parts in training
    mode.
    """

    def __init__(self, network: Network, few: Tensor):
        super().__init__()
        self.random: set[str] = set()
        self.half = self.norms = False
        self.steps = bool(getattr(network.module, "rounds", False))
        self.training: dict[str, str] = {}
        handles = [
            part.register_forward_pre_hook(self._note(name), prepend=True)
            for name, part in network.module.named_modules()
            if not isinstance(part, torch.jit.ScriptModule)
        ]
        try:
            for count in (len(few), 2):  # one that takes no batch of some size was seen up to there
                try:
                    with self:
                        network.predict(few[:count], batch=count)
                except (RuntimeError, ValueError, IndexError, UserError):
                    continue
                break
        finally:
            for handle in handles:
                handle.remove()

    def _note(self, name: str) -> Any:
        def hook(part: nn.Module, _: Any) -> None:
            if part.training:
                self.training.setdefault(name, type(part).__name__)

        return hook

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if any(word in name for word in RANDOM) and "norm" not in name.replace("normal", ""):
            self.random.add(name.removeprefix("native_").rstrip("_"))
        self.steps |= any(word in name for word in STEPS)
        if "batch_norm" in name and len(args) > 5 and args[5] is True:
            self.norms = True
        found = func(*args, **(kwargs or {}))
        for own in found if isinstance(found, (tuple, list)) else (found,):
            self.half |= isinstance(own, Tensor) and own.dtype in HALF
        return found
