"""datafree record"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from .. import presets, stats
from ..data import Dataset
from ..errors import UserError, unknown
from ..network import Network
from ..records import Record, forecast_auc
from ..records import record as measure
from ..release import is_release, write_record, write_release
from ..runlog import RunLog
from .common import Data, Input, Model, Run, bar, chosen, load_data, load_teacher, spec_of

__all__ = ["command", "record"]


def command(argv: list[str]) -> Callable[..., None]:
    """`record` with the flags of the kind named by --kind, or those of the presets."""
    kind = chosen(argv, "--kind")
    if kind is None:
        return record
    if kind not in stats.kinds():
        raise unknown("kind of record", kind, stats.kinds())
    settings = stats.kinds()[kind]

    def one_kind(
        model: str,
        /,
        *,
        data: Data | None = None,
        kind: str,
        settings: Annotated[settings | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
        taps: tuple[str, ...] = (),
        add: bool = False,
        out: Path | None = None,
        source: Model | None = None,
        input: Input | None = None,
        run: Run | None = None,
    ) -> None:
        chosen_settings = settings if settings is not None else stats.of({"kind": kind})
        _record(model, [(chosen_settings, taps or None)], add, out, data, source, input, run)

    one_kind.__doc__ = record.__doc__
    one_kind.__annotations__ |= {
        "model": str, "data": Data | None, "kind": str, "taps": tuple[str, ...], "add": bool, "out": Path | None,
        "source": Model | None, "input": Input | None, "run": Run | None,
        "settings": Annotated[settings | None, Parameter(name="*")],
    }  # fmt: skip
    return one_kind


def record(
    model: str,
    /,
    *,
    data: Data | None = None,
    kind: str | None = None,  # noqa: ARG001
    preset: Literal["small", "safe", "sharp", "paper", "full"] = "safe",
    leak: float = presets.LEAK,
    add: bool = False,
    out: Path | None = None,
    source: Model | None = None,
    input: Input | None = None,
    run: Run | None = None,
) -> None:
    """Measure a network's activations on its training data and write the record into its release.

    Example: datafree record teacher --data mnist

    Example: datafree record teacher --data mnist --kind moments --covariance lowrank --rank 32 --taps fc1 --taps fc2

    Parameters
    ----------
    model
        A release folder, or a model with --weights (then --out names the release to write).
    kind
        One kind of statistic with flags of its own: moments, spectral-all, spectral-pairs, batch-norm, input.
        `datafree record --kind KIND --help` shows them.
    preset
        A ready choice: `small` (top layer only), `safe` (coarse class means of the pixels and directions that all
        classes share, within --leak), `sharp` (fine ones for each class), `paper` (all that the paper's methods need),
        `full` (everything).
    leak
        What `safe` may give away: the forecast area under the ROC curve of a membership attack, above 0.5 and below 1.
    taps
        The layers to record, by torch's dotted names, or `input` for the pixels; all conv and linear layers by default.
    add
        Keep the entries of the record that is there, and add these.
    out
        The release folder to write, where the model is not one already.
    """
    options = input or Input()
    _record(model, (preset, leak), add, out, data, source, options, run)


def _record(
    model: str,
    what: tuple[str, float] | list[tuple[Any, tuple[str, ...] | None]],
    add: bool,
    out: Path | None,
    data: Data | None,
    source: Model | None,
    input: Input | None,
    run: Run | None,
) -> None:
    data, source, input, run = data or Data(), source or Model(), input or Input(), run or Run()
    if not is_release(model) and out is None:
        raise UserError(f"{model} is no release folder, wanted --out; name the release folder to write")
    training = load_data(data, "train")
    spec = None if is_release(model) else spec_of(training, model, input)
    network, old = load_teacher(model, source if add else replace(source, record=None), run, spec)
    wanted = presets.preset(what[0], network, training, leak=what[1]) if isinstance(what, tuple) else what
    log = RunLog(
        "record", {"model": model, "what": _plain(wanted), **asdict(data), **asdict(source), **asdict(run)}, [model]
    )
    with bar(f"record {model}", run.quiet) as progress:
        made = measure(network, training, wanted, progress=progress)
    if add and old is not None:
        made = replace(made, entries={**old.entries, **made.entries})
    if out is None:
        path = write_record(model, network, made)
    else:
        path = write_release(out, network, made) / "record.safetensors"
    log.write(path.parent, {"bytes": path.stat().st_size, "forecast_auc": forecast_auc(made.released(network))})
    _say(path, made, network, training)


def _plain(wanted: list[Any]) -> list[Any]:
    return [{"statistic": s.model_dump(mode="json"), "taps": list(t) if t else None} for s, t in wanted]


def _say(path: Path, made: Record, network: Network, data: Dataset) -> None:
    """What it costs in bytes, what it gives away."""
    size, images = path.stat().st_size, len(data) * network.spec.pixels
    print(f"{path}: {size:,} bytes (model {network.nbytes():,}; the {len(data):,} images as bytes {images:,})")
    for name, entry in made.entries.items():
        own = made.meter(name, network).released(entry.summary)
        print(f"  {name}: {entry.statistic.kind}, {entry.nbytes():,} bytes, forecast AUC {forecast_auc(own):.3f}")
    total = forecast_auc(made.released(network))
    print(
        f"forecast of a membership attack that knows the population: AUC {total:.3f} (0.5 none, 1.0 identifies everybody)"
    )
    if total > 0.6:
        print(
            "  above 0.60: training samples can be told from others. --preset safe, fewer layers or --pooled give less away"
        )
