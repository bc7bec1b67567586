"""Untrusted ONNX files: checked from their bytes (`check`), then run in a process with limits (`Process`).

`wire` parses protobuf, `fields` lists the allowed fields, and `graph` is the content of a file. `values` with `elementwise`,
`shaping` and `layers` determines what every operator returns, `cost` what it needs, and `checking` applies the limits.
`process` and `worker` run the file. Only the worker needs onnxruntime; nothing here needs torch or onnx.
"""

from .checking import MAX_BYTES, Program, check
from .process import Process

__all__ = ["MAX_BYTES", "Process", "Program", "check"]
