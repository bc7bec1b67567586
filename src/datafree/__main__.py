"""`python -m datafree`."""

from .cli.main import main

main()
