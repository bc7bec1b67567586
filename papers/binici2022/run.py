"""Robust and resource-efficient data-free distillation by generative pseudo replay (Binici et al. 2022).

    python -m papers.binici2022.run --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python -m papers.binici2022.run --budget cpu     # the numbers in claims.json
    python -m papers.binici2022.run --budget gpu --device cuda

Each cell (data set, teacher, row, seed) is written as soon as it is measured, and an interrupted cell resumes after its last
finished epoch. Accuracy is measured after the last epoch on the whole test set, which no method can read; nothing is chosen
by it.
"""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from papers.binici2022.rows import BUDGETS, PAPER
from papers.online import main

if __name__ == "__main__":
    sys.exit(main(__doc__, Path(__file__).resolve().parent, BUDGETS, PAPER))
