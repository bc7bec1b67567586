"""Every kind of file that the project reads: how a sample is made, and how it is opened as the commands open it."""

from __future__ import annotations

from .datasets import DATA
from .logs import LOGS
from .quantized import QUANTIZED
from .releases import RELEASES
from .states import STATES
from .subject import Subject

__all__ = ["SUBJECTS"]

SUBJECTS: dict[str, Subject] = {**RELEASES, **STATES, **DATA, **LOGS, **QUANTIZED}
