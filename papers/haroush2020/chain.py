"""What the chains of this paper share: a network's rows, measured one after another for one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from datafree.data import load
from papers.cells import measure, read_cell
from papers.haroush2020.rows import Pair

__all__ = ["RowsOfSeed"]


class RowsOfSeed:
    """Rows of one network and one seed. Subclasses have `quantized`, and `row_NAME` for each name in `ALONE`."""

    settings: ClassVar[staticmethod[[Pair, str], dict[str, Any]]]
    """Everything that decides the result of a row. A cell with other settings is measured again and is no claim."""

    ALONE: ClassVar[tuple[str, ...]] = ("int8", "similarity")
    """Rows that are not bit widths and a source of images."""
    DATA: ClassVar[str | None] = None
    """The data set; None: that of the pair."""

    def __init__(
        self, pair: Pair, seed: int, work: Path, data_dir: str | None, weights: Path, device: str,
        rows: tuple[str, ...] = (),
    ):  # fmt: skip
        self.pair, self.seed, self.device, self.weights, self.data_dir = pair, seed, device, weights, data_dir
        self.rows = rows or pair.rows
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (load(self.DATA or pair.data, split, data_dir=data_dir) for split in ("train", "test"))
        if pair.limit is not None:
            self.test = self.test.subset(pair.limit)

    def run(self, say: Any) -> None:
        for row in self.rows:
            row_settings = self.settings(self.pair, row)
            if read_cell(self.folder, row, row_settings) is None:
                measure(self, row, row_settings, say)

    def row(self, name: str, /) -> dict[str, Any]:
        if name in self.ALONE:
            return getattr(self, f"row_{name}")()
        bits, _, source = name.partition("/")
        return self.quantized(bits, source)

    def quantized(self, name: str, source: str) -> dict[str, Any]:
        """The result of a network rounded to the bit widths `name`, with ranges from a source of images."""
        raise NotImplementedError
