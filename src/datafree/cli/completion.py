"""datafree completion"""

from __future__ import annotations

from typing import Literal

__all__ = ["completion"]


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and flags in a shell.

    Example: datafree completion bash > ~/.local/share/bash-completion/completions/datafree

    Example: datafree completion zsh > ~/.zfunc/_datafree

    Example: datafree completion fish > ~/.config/fish/completions/datafree.fish

    Parameters
    ----------
    shell
        The shell that the script is for.
    """
    from . import app
    from .json_output import result
    from .terminal import plain

    script = app().generate_completion(prog_name="datafree", shell=shell)
    result({"shell": shell, "script": script})
    plain().write(script)
