"""datafree expand"""

# Annotations are evaluated: the options of each kind of alignment are a class that is made from its settings.

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from .._core.distributed import main_process, together
from .._core.errors import UserError
from .arguments import RecordedModel, Run, Whole, settings_of
from .loading import check_record, code_of_settings, inputs_of, load_record, load_teacher
from .method_options import flattened, of_settings, values
from .progress_bar import bar
from .settings_source import SettingsText, family, read
from .synthesize import check_counts, estimate, finish

__all__ = ["DEFAULT", "KINDS", "app", "kind_command"]

DEFAULT = "mmd"
"""`synthesis.losses.alignment.DEFAULT`, which imports torch."""
KINDS = family("datafree.synthesis.losses.alignment", "alignment")

app = App(name="expand")
Settings = of_settings(read("datafree.synthesis.expansion", "Expansion"))


def kind_command(kind: str, text: SettingsText) -> Callable[..., None]:
    """The command of one kind of alignment, whose flags are the fields of its settings and of `Expansion`."""
    Options = of_settings(text, without=["alignment"], group=Group(f"Options of {kind}", sort_key=1))

    def expand(
        teacher: str,
        condensed: Path,
        /,
        *,
        out: Path,
        images: Whole = 10_000,
        guide: Annotated[Options | None, flattened(Options)] = None,  # pyright: ignore[reportInvalidTypeForm]
        settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
        generator: bool = False,
        chunk: Whole | None = None,
        workers: Whole | None = None,
        source: RecordedModel | None = None,
        run: Run | None = None,
    ) -> None:
        """Make many images from a few condensed or real ones and the network, without other data.

        If interrupted, repeat the command to continue. The first word after `expand` is the kind of alignment: the distance
        to the condensed images that is reduced. Without one it is `mmd`. The condensed images are not part of the set;
        `datafree distill TEACHER --set SET --condensed CONDENSED` learns from both.

        Example: datafree expand teacher condensed --images 5000 --out set

        Parameters
        ----------
        teacher
            Release folder. With --weights, those weights are used instead of its own.
        condensed
            Output of `datafree condense` or `import-condensed`: the folder, or its condensed.safetensors.
        out
            Folder for the set: checksummed safetensors shards, set.json, run.json.
        images
            Number of images. A larger number on a second run appends.
        generator
            Make the images with a meta-learned generator, as `synthesize meta-generator` does with its default settings,
            instead of optimising pixels: more varied, for networks with batch norm. Of the other options only --guidance
            has an effect on it.
        chunk
            Number of images made together, 256 by default, or up to 10,240 with --generator. A run resumes, and is split
            among processes, by whole chunks.
        workers
            Number of chunks made at a time, one thread each; by default as many as there are cores and memory for.
        """
        from ..synthesis.expansion import Expansion
        from ..synthesis.losses import alignment

        expansion = _generator(values(settings)) if generator else (Expansion(**values(settings)), None)
        chosen = alignment.from_name(kind, **values(guide))
        _expand(
            teacher, condensed, *expansion, chosen, out, images, chunk, workers, source or RecordedModel(), run or Run()
        )

    return expand


def _generator(chosen: dict[str, Any]) -> tuple[Any, float | None]:
    """The generator's settings and the weight of the alignment, of the options of `Expansion` that were given."""
    from .._core.flag_names import flag_name
    from ..synthesis.expansion import Expansion
    from ..synthesis.methods.meta_generator import MetaGenerator

    unused = [name for name in chosen if name != "guidance"]
    if unused:
        flag = flag_name("Expansion", unused[0])
        raise UserError(f"--{flag}: got it with --generator, which has no such option; leave one of the two out")
    return MetaGenerator(), Expansion(**chosen).guidance


@together()
def _expand(
    teacher: str, condensed: Path, settings: Any, guidance: float | None, guide: Any, out: Path, images: int,
    chunk: int | None, workers: int | None, source: RecordedModel, run: Run,
) -> None:  # fmt: skip
    from .._core.settings import with_paths
    from ..data.condensed.condensed_set import Condensed
    from ..models import hooks
    from ..records.divergence import has_statistics
    from ..runs.output_folder import output_folder
    from ..runs.run_log import RunLog
    from ..synthesis.expansion import Expansion, GuidedInversion, guided
    from ..synthesis.synthetic_set import SET_FOLDER, chunk_size, make_set, memory_hashes

    check_counts(out, images=images, chunk=chunk, workers=workers)
    network = load_teacher(teacher, source, run)
    hooks.shapes(network, (hooks.FEATURES,))  # before the folder is claimed
    condensed_set = Condensed.open(condensed, network)
    record = load_record(teacher, source, network)
    method: Any = guided(network, (condensed_set.clamped(), condensed_set.labels), settings, guide, guidance)
    chunk = chunk_size(method, network, images, out) if chunk is None else chunk
    check_record(method, network, source, record)
    inverted = isinstance(method, GuidedInversion)
    opening = estimate(network, method, images, chunk, workers, out=out)
    if not isinstance(settings, Expansion) and not has_statistics(network, record):
        raise UserError(
            f"--generator: {network.name} has no batch norm and no record of moments of its layers (datafree record moments "
            "--conv units), expected one of them; leave --generator out, then pixels are optimised"
        )
    chosen = settings.model_dump(mode="json") if inverted else {"generator": True, "guidance": guidance}
    options = {
        "teacher": teacher, "condensed": condensed, "images": images, "chunk": chunk, **chosen, **with_paths(guide),
        **settings_of(source), **asdict(run),
    }  # fmt: skip
    inputs = {**inputs_of(teacher, source, role="teacher", record=True), **code_of_settings("alignment", guide)}
    inputs |= code_of_settings("expansion", settings)
    log = RunLog("expand", options, {**inputs, "condensed": condensed}, hashes=memory_hashes(network, record))
    units: dict[str, Any] = {"images": images, "chunk": chunk, "workers": workers, "seed": run.seed}
    with output_folder(out, SET_FOLDER, log) as folder, bar("expand", run.quiet, opening) as progress:
        if folder is None:
            return
        synthetic_set = make_set(network, record, method, folder, progress=progress, **units)
        finish(synthetic_set, folder, log)
    if not main_process():
        return
    if inverted and record is not None and settings.statistics is None and not has_statistics(network, record):
        print("  the record has no moments by channel (datafree record moments --conv units), so none were matched")
    if condensed_set.missing():
        names = ", ".join(condensed_set.missing()[:8]) + (" ..." if len(condensed_set.missing()) > 8 else "")
        print(f"  no image of {names} in {condensed}: those classes were made unguided")


app.default(kind_command(DEFAULT, KINDS[DEFAULT]))
for _name, _text in KINDS.items():
    app.command(kind_command(_name, _text), name=_name, help=_text.summary)
