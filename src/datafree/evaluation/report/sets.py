"""Images of a report: grids of synthetic sets and real images, and how closely sets match a network's statistics."""

from __future__ import annotations

from pathlib import Path

import torch

from ..._core.errors import UserError
from ...data import Dataset
from ...models.class_names import class_positions
from ...models.input_spec import InputSpec
from ...models.network import Network
from ...models.pixel_bytes import to_pixels
from ...quantization.folder import is_quantized
from ...records.divergence import stored_statistics
from ...releases.release import Release
from ...runs.run_reader import FinishedRun
from ...synthesis.methods import from_name
from ...synthesis.methods.meta_generator import augmentation_of
from ...synthesis.synthetic_set import SyntheticSet
from ..similarity import layer_matches
from .images import grid_of
from .measured_on import images_of_split
from .model import Grid, Match
from .networks import NetworkOpener, warn_of_missing_code
from .rows import making_time

__all__ = ["matches", "real_grid", "set_grid"]

IMAGES_SHOWN = 4096
IMAGES_MATCHED = 512


def set_grid(folder: Path, log: FinishedRun | None = None) -> Grid:
    """Class means and random samples of a synthetic set, by the teacher's predicted class."""
    synthetic = SyntheticSet.open(folder)
    synthetic.check_hits()
    pixels, _, logits = synthetic.load()
    classes, spec = logits.argmax(1), synthetic.spec
    method = synthetic.about["method"]["method"]
    note = f"method {method}, {len(synthetic):,} {making_time(log)}; sorted by the teacher's prediction"
    if (warning := synthetic.warning()) is not None:
        note += f"; {warning}"
    return grid_of(folder.name, to_pixels(pixels, spec), classes, len(spec.classes), spec=spec, note=note)


def real_grid(data: Dataset, spec: InputSpec) -> Grid:
    """Class means and random samples of real images."""
    positions = class_positions(data.classes, spec.classes, data.name, "the teacher", part=True)
    data = data.relabelled(positions, spec.classes).scaled_to(spec)
    sample = data.subset(min(len(data), IMAGES_SHOWN))
    pixels = sample.pixels(torch.arange(len(sample)).numpy(), spec.shape[1:])
    return grid_of(
        f"real: {data.public}", pixels, sample.labels, len(spec.classes), spec=spec, note=images_of_split(data)
    )


def matches(
    sets: list[Path], networks: list[Path], teacher: Path | None, opener: NetworkOpener, seed: int
) -> tuple[list[Match], list[str]]:
    """How closely sets match the statistics stored in the network that they were made from, if that is among the runs; and
    warnings.
    """
    by_teacher: dict[str, list[Path]] = {}
    for folder in sets:
        by_teacher.setdefault(str(SyntheticSet.open(folder).about["teacher"]), []).append(folder)
    results, warnings = [], []
    for folder in sorted(networks, key=lambda path: path != teacher):
        if not by_teacher:
            break
        network = None if is_quantized(folder) else opener.open(folder)
        teacher_sets = [] if network is None else by_teacher.pop(network.fingerprint(), [])
        if teacher_sets and network is not None:
            match, unmatched = _match(folder, network, teacher_sets, seed)
            results, warnings = results + match, warnings + unmatched
    without_network = [folder.name for group in by_teacher.values() for folder in group]
    return results, warnings + warn_of_missing_code(without_network, networks, opener)


def _match(folder: Path, network: Network, sets: list[Path], seed: int) -> tuple[list[Match], list[str]]:
    record = Release.open(folder).record(network)
    try:
        layers = stored_statistics(network, record)
    except UserError:  # it has no statistics to match
        return [], []
    results, warnings, augmented = [], [], False
    for path in sets:
        synthetic = SyntheticSet.open(path)
        spec = synthetic.spec
        pixels = to_pixels(synthetic.load()[0][:IMAGES_MATCHED], spec)
        shift, flip = augmentation_of(synthetic.about["method"])
        shift = min(shift, min(spec.shape[1:]) - 1)
        try:
            results.append(layer_matches(network, path.name, pixels, layers, shift=shift, flip=flip, spec=spec))
            augmented = augmented or shift > 0 or flip
        except UserError as error:
            warnings.append(f"{path.name} was not matched: {error}")
    noise = from_name("gaussian").bind(network, None).chunk(0, seed, IMAGES_MATCHED).pixels
    results.append(layer_matches(network, "noise", noise, layers, reference=True))
    augmentation = (
        "those of meta-generator shifted and mirrored as they were made" if augmented else "shown as they are"
    )
    caption = f"{folder.name}: at most {IMAGES_MATCHED} images of each set, {augmentation}; noise in grey"
    return [Match(caption, results)] if len(results) > 1 else [], warnings
