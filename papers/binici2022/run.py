"""Robust and resource-efficient data-free distillation by generative pseudo replay (Binici et al. 2022).

    python papers/binici2022/run.py --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python papers/binici2022/run.py --budget cpu     # the numbers in claims.json
    python papers/binici2022/run.py --budget gpu --device cuda

Each cell (data set, teacher, row, seed) is written when it is done, and a cell that was stopped goes on at its last whole
epoch. Accuracy is that of the last epoch on the whole test set, which no method can read; nothing is chosen by it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from games import main
from rows import BUDGETS, PAPER

if __name__ == "__main__":
    sys.exit(main(__doc__, HERE, BUDGETS, PAPER))
