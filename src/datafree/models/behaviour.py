"""Checks that a network's answer to an image depends only on the image: the same each time, in any batch, without changing
the network. Fingerprints, records and checks of files rely on that. Also checks that gradients pass through it for training.
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
"""Indices of some probes, in another order."""
ALONE = 3
"""Number of these probes that are shown alone."""
MANY = 130
"""Images in the large batch, more than `predict` takes at a time on a CPU; fewer for large images."""
ROOM = 1 << 19
"""Most pixels in the large batch, unless the probes alone have more."""
SUM = 1e-2
"""Tolerance of the sum of an image's probabilities, in bfloat16."""
REPEATS = 30
"""Further calls of a network that draws random numbers."""
SAME, ALIKE, COARSE = 1e-4, 0.02, 0.25
"""Tolerances as a share of the logits' spread: between equal calls, between batches, and between batches in half
precision.
"""
STEPPED = 0.1
"""Share of rows that may fall on the other side of a step."""
STEPS = (
    "round", "floor", "ceil", "trunc", "quantize", "sign", "heaviside", "bucketize", "argmax", "argmin", "topk", "sort",
)  # fmt: skip
"""Parts of the names of operators with discontinuous results."""
RANDOM = ("dropout", "bernoulli", "rand", "normal", "uniform", "exponential", "multinomial", "poisson", "geometric")
HALF = (torch.float16, torch.bfloat16)


def check_state(network: Network) -> None:
    """Raises UserError for weights that are not finite dense tensors, before any of them is used."""
    for name, tensor in network.module.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.is_quantized:
            raise UserError(
                f"{network.name} holds packed weights ({name!r}), as torch's quantized modules do, expected plain tensors; "
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
                f"weight {name!r} of {network.name} is {tensor.layout}, expected a dense tensor; call to_dense()"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"weight {name!r} of {network.name} has NaN or infinity; use weights that are finite")


def check_finite(name: str, logits: Tensor, start: int = 0) -> None:
    """Raises UserError if logits (N, classes) have NaN or infinity, for which no class can be chosen.

    `start` is the index of the first row's image.
    """
    not_finite = ~logits.isfinite()
    bad_rows = not_finite.flatten(1).any(1)
    if bool(bad_rows.any()):
        if bool((logits[not_finite] == -torch.inf).all()) and bool((not_finite == not_finite[0]).all()):
            raise UserError(
                f"the logits of {name} are -inf for {int(not_finite[0].sum())} of {logits.shape[1]} classes on every "
                "image, as "
                "where classes are masked, expected finite logits; mask them with a finite number, such as -1e4"
            )
        raise UserError(
            f"the logits of {name} are not finite on {int(bad_rows.sum()):,} of {start + len(logits):,} images, the "
            "first of "
            f"them image {start + int(bad_rows.nonzero()[0]):,} (counted from 0); use weights that give finite logits, "
            "and no images on which its forward divides by 0, such as blank ones where it standardises each"
        )


def say_probabilities(name: str, answers: Tensor) -> None:
    """Warns with a `Notice` if the answers (N, classes) to the probes are probabilities, as after a softmax, and not logits.

    Does nothing if all answers are equal, since these could be either.
    """
    sums, answers_vary = (answers.sum(1) - 1).abs(), answers.shape[1] > 1 and not bool((answers == answers[0]).all())
    if answers_vary and float(answers.min()) >= 0 and float(sums.max()) < SUM:
        warnings.warn(
            Notice(
                f"the outputs of {name} are probabilities (from 0, with a sum of 1 for each probe image), expected logits, "
                "from which students and images learn far more; give it without the softmax at its end"
            ),
            stacklevel=3,
        )


@torch.no_grad()
def check_answers(network: Network, probes: Tensor, answers: Tensor) -> None:
    """Raises UserError, with the reason, if other calls give other answers to the probes than `answers` (N, classes).

    In a network that rounds or routes (int8, half precision), one row in ten may fall on the other side of a step in another
    batch. Any other network is refused for a single row.
    """
    probe_subset = probes[list(ORDER)]
    cuda = [network.device] if network.device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        state_before, generators_before = _state(network), _generators()
        first_answers = _answer(network, probe_subset)
        is_random = _generators() != generators_before
        repeated = [_answer(network, probe_subset) for _ in range(REPEATS if is_random else 1)]
        changed = _changed(state_before, _state(network))
        answers_alone = torch.cat([_answer(network, probe_subset[row : row + 1]) for row in range(ALONE)])
        _compare(network, probe_subset, answers[list(ORDER)], first_answers, repeated, answers_alone)
        _compare_many(network, probes, answers)
        if changed is not None:
            raise UserError(
                f"{network.name} changes its {changed!r} in a forward pass, expected no change in eval mode; "
                f"{_training(network, probe_subset) or 'change it only in training mode'}"
            )


def _compare(
    network: Network,
    probe_subset: Tensor,
    answers: Tensor,
    first_answers: Tensor,
    repeated: list[Tensor],
    answers_alone: Tensor,
) -> None:
    spread, size = float((answers - answers.mean()).abs().max()), float(answers.abs().max())
    difference = max(float((answer - first_answers).abs().max()) for answer in repeated)
    if not difference <= SAME * spread + 1e-5 * size:
        raise UserError(
            f"{network.name} gives different answers to the same images in each call (logits differ by up to "
            f"{difference:.2g}), expected the same "
            f"answers in eval mode; {_why_random(network, probe_subset)}"
        )
    for logits, expected in ((first_answers, answers), (answers_alone, answers[:ALONE])):
        _check_apart(network, probe_subset, answers, (logits - expected).abs().amax(1))


def _check_apart(network: Network, probe_subset: Tensor, answers: Tensor, differences: Tensor) -> None:
    """Raises UserError if the logits of a row differ between batches by more than rounding explains."""
    spread, size = float((answers - answers.mean()).abs().max()), float(answers.abs().max())
    limit = ALIKE * spread + 1e-4 * size
    if float(differences.max()) <= limit:
        return
    median, beyond_share = float(differences.median()), float((differences > limit).double().mean())
    observed = _Observed(network, probe_subset)
    if (
        (observed.steps or observed.half)
        and median <= limit
        and (beyond_share <= STEPPED or len(differences) < 1 / STEPPED)
    ):
        return
    if observed.half and median <= COARSE * spread + 1e-2 * size:
        return
    raise UserError(
        f"{network.name} gives another answer to an image in another batch (logits differ by up to "
        f"{float(differences.max()):.2g}), expected "
        f"answers that do not depend on the batch; {_why_batch(network, probe_subset)}"
    )


def _compare_many(network: Network, probes: Tensor, answers: Tensor) -> None:
    """Compares one large batch of all probes, repeated and in another order: a network may sort its batch or depend on its
    size."""
    count = max(len(probes), min(MANY, ROOM // network.spec.pixels))
    rows = (5 * torch.arange(count) + 3) % len(probes)  # no probe keeps its place
    differences = (_answer(network, probes[rows]) - answers[rows]).abs().amax(1)
    _check_apart(network, probes[list(ORDER)], answers, differences)


def check_pixel_gradient(network: Network, method: str) -> None:
    """Raises UserError unless gradients reach the network's images, which `method` needs."""
    from .network import frozen

    with torch.random.fork_rng([]), torch.enable_grad(), frozen(network.module):
        images = network.probes()[list(ORDER)].to(network.device).requires_grad_()
        logits = network.logits(images)
        if not logits.requires_grad:
            raise UserError(
                f"no gradient reaches the images of {network.name}, and {method} needs one; {_gradient_advice(logits)}"
            )
        weights = torch.linspace(1, 2, logits[0].numel(), device=logits.device, dtype=logits.dtype)
        (gradient,) = _gradient(network, (logits * weights).sum(), [images])
    if gradient is None or not bool(gradient.any()):
        raise UserError(
            f"the gradient of {network.name} for its images is zero, and {method} needs one; remove rounding and detach() "
            "from its forward"
        )


def check_learns(network: Network) -> None:
    """Raises UserError unless the gradient of a loss reaches at least one weight of the network."""
    try:
        _check_learns(network, training=False)
    except UserError:  # some layers, such as LoRA's, have weights that learn only in training mode
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
        weights = [tensor for tensor in network.module.parameters() if tensor.requires_grad]
        if not weights:
            raise UserError(
                f"{network.name} has no weights that can learn, expected some; call requires_grad_(True) on it, or take a "
                "network with weights"
            )
        logits = network.logits(network.probes()[list(ORDER)].to(network.device))
        if not logits.requires_grad:
            raise UserError(
                f"no gradient reaches the weights of {network.name}, so it cannot learn; {_gradient_advice(logits)}"
            )
        gradients = _gradient(network, logits.sum(), weights)
    if all(tensor is None for tensor in gradients):
        raise UserError(
            f"no gradient reaches the weights of {network.name}, so it cannot learn; {_gradient_advice(logits)}"
        )


def _gradient(network: Network, total: Tensor, leaves: list[Any]) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(total, leaves, allow_unused=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        remedy = (
            "give use_reentrant=False to checkpoint"
            if "use_reentrant" in reason
            else "write the operation out of place"
        )
        raise UserError(f"gradients of {network.name} cannot be computed: {reason[:160]}; {remedy}") from None


def _gradient_advice(logits: Tensor) -> str:
    inference = " under torch.inference_mode" if logits.is_inference() else ""
    reason = inference or " under torch.no_grad, detaches tensors, or converts them to integers"
    return f"its forward runs{reason}; remove that"


def _answer(network: Network, images: Tensor) -> Tensor:
    """The logits of one batch. Raises UserError if the network does not accept a batch of this size."""
    try:
        logits = network.predict(images, batch=len(images))
    except (RuntimeError, ValueError, IndexError) as error:
        remedy = _batch_norms(network, images) or "make it work for any number of images"
        raise UserError(
            f"{network.name} does not take {len(images)} image{'s' * (len(images) > 1)} at a time: "
            f"{str(error).splitlines()[0][:160]}; {remedy}"
        ) from None
    return logits


def _state(network: Network) -> dict[str, Any]:
    """Copies of persistent buffers, and two sums of each weight, since weights may be large."""
    buffers = {id(buffer) for buffer in network.module.buffers()}
    summary: dict[str, Any] = {}
    for name, value in network.module.state_dict(keep_vars=True).items():
        if id(value) in buffers:
            summary[name] = value.detach().clone()
        elif isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
            weight = value.detach()
            summary[name] = torch.stack([weight.sum(dtype=torch.float64), weight.norm(dtype=torch.float64)])
    return summary


def _changed(old_state: dict[str, Any], new_state: dict[str, Any]) -> str | None:
    return next(
        (name for name, value in new_state.items() if name in old_state and not torch.equal(old_state[name], value)),
        None,
    )


def _generators() -> dict[str, Any]:
    """The states of the random generators that a forward pass may draw from."""
    _, key, place, *_ = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy.random": (key.tobytes(), place),  # type: ignore[union-attr]
        "random": random_module.getstate(),
    }


def _why_random(network: Network, probe_subset: Tensor) -> str:
    observed = _Observed(network, probe_subset)
    if names := [name for name, kind in observed.training.items() if "Drop" in kind]:
        return f"dropout {', '.join(map(repr, names[:3]))} stays active; do not set its training mode in the forward"
    if observed.random:
        functions = ", ".join(sorted(observed.random)[:3])
        return (
            f"its forward draws random numbers ({functions}); give F.dropout training=self.training, and noise likewise"
        )
    if reason := _training(network, probe_subset):
        return reason
    states_before = _generators()
    _answer(network, probe_subset)
    if changed := [name for name, state in _generators().items() if state != states_before[name]]:
        return f"its forward draws random numbers ({changed[0]}); do so only in training mode"
    return "its forward keeps state between calls; change nothing in eval mode"


def _why_batch(network: Network, probe_subset: Tensor) -> str:
    if reason := _batch_norms(network, probe_subset):
        return reason
    if random := sorted(_Observed(network, probe_subset).random):
        return (
            f"its forward draws random numbers ({', '.join(random[:3])}) with a seed that it sets itself; give F.dropout "
            "training=self.training, and noise likewise"
        )
    return "do not use statistics of the batch or the order of its images in eval mode"


def _batch_norms(network: Network, probe_subset: Tensor) -> str:
    """The batch norms that use the batch's statistics in eval mode, and the remedy; empty if there are none."""
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
    return _training(network, probe_subset)


def _training(network: Network, probe_subset: Tensor) -> str:
    """The part that runs in training mode although the network is in eval mode, and the remedy; empty if there is none."""
    observed = _Observed(network, probe_subset)
    if names := [repr(name) for name, kind in observed.training.items() if "Norm" in kind]:
        return f"batch norm {', '.join(names[:3])} runs in training mode; do not set its training mode in the forward"
    if observed.norms:
        return "its forward calls F.batch_norm with training=True; give it training=self.training"
    if observed.training:
        name = next(iter(observed.training))
        return f"its forward puts {name or 'itself'!r} into training mode; do not set its training mode in the forward"
    return ""


class _Observed(TorchDispatchMode):
    """Observes a forward pass in eval mode: random functions, half precision, discontinuous operators, batch statistics,
    and parts in training mode.
    """

    def __init__(self, network: Network, probe_subset: Tensor):
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
            for count in (len(probe_subset), 2):  # a pass that fails for a batch size was observed up to its error
                try:
                    with self:
                        network.predict(probe_subset[:count], batch=count)
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
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, (tuple, list)) else (outputs,):
            self.half |= isinstance(output, Tensor) and output.dtype in HALF
        return outputs
