"""datafree record: its options; what it does is in record.py, which imports torch."""

# Annotations are evaluated: the options of each kind are a class that is made from its settings.

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from .arguments import Data, Input, NamedModel, Run
from .method_options import flattened, of_settings, values
from .settings_source import SettingsText, family

__all__ = ["KINDS", "app", "kind_command", "record"]

LEAK = 0.6
"""`records.presets.LEAK`, which imports torch."""
KINDS = family("datafree.records.statistics", "kind")

app = App(name="record")


def kind_command(kind: str, text: SettingsText) -> Callable[..., None]:
    """The command of one kind of statistic, whose flags are the fields of its settings."""
    Options = of_settings(text, without=["kind"], group=Group(f"Options of {kind}", sort_key=1))

    def record(
        teacher: str,
        /,
        *,
        settings: Annotated[Options | None, flattened(Options)] = None,  # pyright: ignore[reportInvalidTypeForm]
        taps: Annotated[tuple[str, ...], Parameter(negative="")] = (),
        add: Annotated[bool, Parameter(negative="")] = False,
        replace: Annotated[bool, Parameter(negative="")] = False,
        out: Path | None = None,
        data: Data | None = None,
        source: NamedModel | None = None,
        input: Input | None = None,
        run: Run | None = None,
    ) -> None:
        """Record one kind of statistic of a network's activations and write it into its release.

        Example: datafree record moments teacher --data mnist --covariance lowrank --rank 32 --taps fc1 --taps fc2

        Parameters
        ----------
        teacher
            Release folder, or a network by name with --weights (then --out names the release to write).
        taps
            Layer to record, by torch's dotted name, or `input` for the pixels; repeat it for more. All conv and linear
            layers by default.
        add
            Keep the entries of the existing record and add these; without --taps, those of layers that it lacks.
        replace
            Overwrite the existing record.
        out
            Release folder to write instead of adding to the teacher's own; needed for a network by name.
        """
        from ..records import statistics

        chosen = statistics.from_dict({"kind": kind, **values(settings)})
        from .record import _record

        _record(teacher, [(chosen, taps or None)], (add, replace), out, data, source, input, run)

    return record


def record(
    teacher: str,
    /,
    *,
    preset: Literal["small", "safe", "sharp", "best", "paper", "full"] = "safe",
    leak: float = LEAK,
    add: Annotated[bool, Parameter(negative="")] = False,
    replace: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
    data: Data | None = None,
    source: NamedModel | None = None,
    input: Input | None = None,
    run: Run | None = None,
) -> None:
    """Measure a network's activations on its training data and write the record into its release.

    Stopped with Ctrl-C, it leaves its sums beside the release, in RELEASE.recording, and continues from them. The first
    word after `record` may be one kind of statistic, which has flags of its own; write a folder of that name as ./moments.

    Example: datafree record teacher --data mnist

    Example: datafree record moments teacher --data mnist --covariance lowrank --rank 32

    Parameters
    ----------
    teacher
        Release folder, or a network by name with --weights (then --out names the release to write).
    preset
        A ready choice: `small` (top layer only), `safe` (coarse class means of the pixels and directions that all
        classes share, with a forecast within --leak; no promise of privacy), `sharp` (fine ones for each class),
        `best` (all of each class's covariance), `paper` (all that the paper's methods need), `full` (everything).
    leak
        Limit of `safe`: the forecast area under the ROC curve of a membership attack, above 0.5 and below 1.
    add
        Keep the entries of the existing record and add these.
    replace
        Overwrite the existing record.
    out
        Release folder to write instead of adding to the teacher's own; needed for a network by name.
    """
    from .record import _record

    _record(teacher, (preset, leak), (add, replace), out, data, source, input or Input(), run)


app.default(record)
for _name, _text in KINDS.items():
    app.command(kind_command(_name, _text), name=_name, help=_text.doc)
