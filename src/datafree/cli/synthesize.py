"""datafree synthesize"""

# Annotations are evaluated: the options of each method are a class that is made from its settings.

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group

from .._core.distributed import main_process, together
from .._core.errors import UserError
from .._core.memory import check_cost, in_words
from .arguments import RecordedModel, Run, Whole, settings_of
from .loading import check_record, code_of_settings, inputs_of, load_record, load_teacher
from .method_options import flattened, of_settings, values
from .progress_bar import bar, duration
from .settings_source import SettingsText, family

if TYPE_CHECKING:
    from ..models.network import Network
    from ..runs.run_log import RunLog
    from ..synthesis.synthetic_set import SyntheticSet

__all__ = ["DEFAULT", "METHODS", "app", "check_counts", "estimate", "finish", "method_command"]

QUICK, SMALL = 30, 2 * 10**9
"""Seconds and bytes below which an estimate is not worth a line."""
DEFAULT = "distribution"
"""`synthesis.methods.DEFAULT`, which imports torch."""
METHODS = family("datafree.synthesis.methods", "method")

app = App(name="synthesize")


def method_command(method: str, text: SettingsText, *, is_named: bool = True) -> Callable[..., None]:
    """The command of one method, whose flags are the fields of its settings; not `is_named`, the default's."""
    Options = of_settings(text, without=["method"], group=Group(f"Options of {method}", sort_key=1))

    def synthesize(
        teacher: str,
        /,
        *,
        out: Path,
        images: Whole = 10_000,
        settings: Annotated[Options | None, flattened(Options)] = None,  # pyright: ignore[reportInvalidTypeForm]
        chunk: Whole | None = None,
        workers: Whole | None = None,
        source: RecordedModel | None = None,
        run: Run | None = None,
    ) -> None:
        """Make images from a network and its record, without data.

        If interrupted, repeat the command to continue.

        The first word after `synthesize` is the method; write a folder of that name as ./bns. Without one it is
        `distribution`, or `meta-generator` for a network with batch norms and without a record.

        Example: datafree synthesize teacher --images 20000 --out set

        Example: torchrun --nproc-per-node 2 -m datafree synthesize spectral-pairs teacher --out set

        Parameters
        ----------
        teacher
            Release folder. With --weights or --record, those are used instead of its own.
        out
            Folder for the set: checksummed safetensors shards, set.json, run.json.
        images
            Number of images. A larger number on a second run appends.
        chunk
            Number of images made together. A run resumes, and is split among processes, by whole chunks. By default 256,
            or as many large images as need 4 GB; for `matched`, one batch for every --classes-per-batch classes; for
            `meta-generator`, up to 10,240.
        workers
            Number of chunks made at a time, one thread each; by default as many as there are cores and memory for.
        """
        from ..synthesis import methods

        chosen = methods.from_name(method, **values(settings)) if is_named or values(settings) else None
        _synthesize(teacher, chosen, out, images, chunk, workers, source or RecordedModel(), run or Run())

    return synthesize


@together()
def _synthesize(
    teacher: str,
    method: Any,
    out: Path,
    images: int,
    chunk: int | None,
    workers: int | None,
    source: RecordedModel,
    run: Run,
) -> None:
    from .._core.settings import with_paths
    from ..runs.output_folder import output_folder
    from ..runs.run_log import RunLog
    from ..synthesis import methods
    from ..synthesis.synthetic_set import SET_FOLDER, chunk_size, make_set, memory_hashes

    check_counts(out, images=images, chunk=chunk, workers=workers)
    network = load_teacher(teacher, source, run)
    record = load_record(teacher, source, network)
    method = methods.resolve_for(method, network, record)
    chunk = chunk_size(method, network, images, out) if chunk is None else chunk
    check_record(method, network, source, record)
    opening = estimate(network, method, images, chunk, workers, out=out)
    options = {
        "model": teacher, "images": images, "chunk": chunk, **with_paths(method), **settings_of(source),
        **asdict(run),
    }  # fmt: skip
    inputs = inputs_of(teacher, source, record=True) | code_of_settings("method", method)
    log = RunLog("synthesize", options, inputs, hashes=memory_hashes(network, record))
    units: dict[str, Any] = {"images": images, "chunk": chunk, "workers": workers, "seed": run.seed}
    with (
        output_folder(out, SET_FOLDER, log) as folder,
        bar(f"synthesize {method.method}", run.quiet, opening) as progress,
    ):
        if folder is not None:
            finish(make_set(network, record, method, folder, progress=progress, **units), folder, log)


def estimate(
    network: "Network", method: Any, images: int, chunk: int, workers: int | None = None, *, all_threads: bool = False,
    out: Path | None = None,
) -> str | None:  # fmt: skip
    """The time and memory that a method which optimises pixels will need; None for other methods, and where they are small.

    A chunk is made on one thread, and whole even if fewer images are needed; with `all_threads` there is one at a time,
    whose size follows the number of images. Chunks that the folder `out` has are not made again. Raises UserError for chunks
    that cannot fit into memory.
    """
    from ..synthesis.cost import fitting_workers, step_cost
    from ..synthesis.synthetic_set import is_optimised, shards_in

    if not is_optimised(method) or network.device.type != "cpu":
        return None
    chunks = -(-images // chunk)
    existing = 0 if out is None else shards_in(out, chunks)
    if existing == chunks:
        return None
    cost, remaining = step_cost(network, all_threads=all_threads), images - existing * chunk
    if all_threads:
        check_cost(cost.bytes(chunk), f"making {chunk:,} images at a time", otherwise="give fewer `images`")
    count = 1 if all_threads else fitting_workers(cost, chunk, chunks - existing, workers, started=existing > 0)
    seconds = cost.duration(remaining, chunk, count, getattr(method, "settings", method).steps)
    needed = count * cost.bytes(chunk)
    if seconds <= QUICK and needed <= SMALL:
        return None
    at_once = f"{count} x {chunk:,}" if count > 1 else f"{chunk:,}"
    threads = "" if all_threads else " on one thread each" if count > 1 else " on one thread"
    subject = f"{'the other ' if existing else ''}{remaining:,} images"
    return f"estimate for {subject}: {duration(seconds)}, {in_words(needed)} of memory; {at_once} at a time{threads}"


def check_counts(out: Path, *, images: int, chunk: int | None, workers: int | None) -> None:
    """Raises UserError for counts below 1, and for fewer images than the set in `out` has already."""
    from ..synthesis.synthetic_set import check_grows

    for name, count in (("workers", workers), ("images", images), ("chunk", chunk)):
        if count is not None and count < 1:
            raise UserError(f"{name}: got {count}, expected at least 1; give a positive count")
    check_grows(out, images)


def finish(synthetic_set: "SyntheticSet", out: Path, log: "RunLog") -> None:
    """Writes the log of a set and prints its size and quality, in the first process alone."""
    if not main_process():
        return
    from ..synthesis.synthetic_set import set_result

    facts = set_result(synthetic_set)
    log.write(out, facts)
    hits = f"; the teacher predicts the target class for {facts['consistent']:.1f} % of them"
    seen, warning = hits if synthetic_set.targeted else "", facts["warning"]
    print(f"{len(synthetic_set):,} images in {out}{seen}")
    if line := _augmentation(synthetic_set.about["method"]):
        print(f"  {line}")
    if warning is not None:
        print(f"warning: {warning}; {_advice(synthetic_set.about['method'])}")


def _augmentation(settings: dict[str, Any]) -> str | None:
    """How the images of a generator were shifted and mirrored, and the flags of other commands that do the same."""
    from ..synthesis.methods.meta_generator import augmentation_of, generator_settings

    generator = generator_settings(settings)
    if generator is None:
        return None
    shift, flip = augmentation_of(settings)
    colour = {"black": " on black", "mean": " on the mean colour"}.get(generator.get("border") or "", "")
    moved = f"shifted by up to {shift} pixel{'s' * (shift > 1)}{colour}" if shift else "not shifted"
    flags = [f"--shift {shift}"] * bool(shift) + ["--flip"] * flip
    same = f"; for distill and similarity, the same is {' '.join(flags)}" if flags else ""
    return f"while they were made, images were {moved} and {'' if flip else 'not '}mirrored{same}"


def _advice(settings: dict[str, Any]) -> str:
    """What may help, of what this method has."""
    flags = {"steps": "more --steps", "learning_rate": "a higher --learning-rate"}
    options = [
        *(words for name, words in flags.items() if name in settings),
        "another method",
        "a record that holds more",
    ]
    return f"try {', '.join(options[:-1])}, or {options[-1]}"


app.default(method_command(DEFAULT, METHODS[DEFAULT], is_named=False))
for _name, _text in METHODS.items():
    app.command(method_command(_name, _text), name=_name, help=f"{_text.summary}\n\n{_text.doc}")
