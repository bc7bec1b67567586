"""`python -m datafree`."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.path and not sys.flags.safe_path:
        del sys.path[0]  # `python -m` puts the working directory there: a stranger's folder may hold a torch.py
    from .cli.main import main

    main()
