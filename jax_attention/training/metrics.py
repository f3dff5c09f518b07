"""Metrics on disk: one JSON object per line, or TensorBoard event files. Step n means after n updates.

{"kind": "train", "step": 20, "loss": 4.1, ...}
{"kind": "evaluation", "step": 20, "loss": 4.2, "bits_per_byte": 3.1, ...}
{"kind": "sample", "step": 20, "text": "..."}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.files import replaced_file


class MetricsFile:
    """A JSON-lines file that contains each step once, however often the run was interrupted and resumed.

        lines of the file = lines with step <= after, then what `write` appends

    Args:
        path: the file; its folder must exist.
        after: the step that the run resumes from. Lines of later steps, which will be written again, are dropped, and
            so is an incomplete line at the end, which a kill may leave. None for a new run.

    Returns:
        An object with `write(kind, step, values)` and `close`; a context manager.

    Raises:
        FileExistsError: if the file has content and `after` is None.
        ValueError: if the file to continue is not a metrics file, or `after` is negative.
        TypeError: if `after` is not an int.

    Example:
        >>> import tempfile, pathlib
        >>> from jax_attention import training
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.jsonl"
        ...     with training.MetricsFile(path) as metrics:
        ...         metrics.write("train", 1, {"loss": 4.0})
        ...         metrics.write("train", 2, {"loss": 3.0})
        ...     with training.MetricsFile(path, after=1) as metrics:
        ...         metrics.write("train", 2, {"loss": 2.5})
        ...     training.read_metrics(path)
        [{'kind': 'train', 'step': 1, 'loss': 4.0}, {'kind': 'train', 'step': 2, 'loss': 2.5}]

    Reference:
        https://jsonlines.org
    """

    def __init__(self, path: str | Path, *, after: int | None = None):
        self.path = Path(path)
        if after is None:
            empty = not self.path.exists() or self.path.stat().st_size == 0
            if not empty:
                raise FileExistsError(
                    f"path: expected a new file, got {self.path}, which has content. Nothing was written. Resume with "
                    "after=step, or choose another folder."
                )
        else:
            check_int("after", after, 0, "It is the step that the run resumes from.")
            _drop_later(self.path, after)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and flush it; NaN and infinities, which JSON lacks, become null."""
        line = {"kind": kind, "step": int(step)} | {name: _to_json(value) for name, value in values.items()}
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self.path)  # which Python does not know after `open`
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class TensorBoard:
    """Event files for TensorBoard, with the methods of `MetricsFile`.

        scalar "kind/name" at step n = values[name]

    Args:
        folder: the folder of the event files.
        after: the step that the run resumes from; TensorBoard then drops later steps. None for a new run.

    Returns:
        An object with `write(kind, step, values)` and `close`; a context manager. Strings become texts.

    Raises:
        ImportError: if tensorboardX is not installed.

    Example:
        >>> import tempfile, pathlib
        >>> from jax_attention import training
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with training.TensorBoard(folder) as board:
        ...         board.write("train", 1, {"loss": 4.0})
        ...     len(list(pathlib.Path(folder).glob("events.*")))
        1

    Reference:
        https://tensorboardx.readthedocs.io
    """

    def __init__(self, folder: str | Path, *, after: int | None = None):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "TensorBoard: expected the package tensorboardX, got none. Install it: pip install "
                "'jax_attention[train]'."
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=None if after is None else after + 1)

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write all numbers and texts of a step."""
        for name, value in values.items():
            if isinstance(value, str):
                self._writer.add_text(f"{kind}/{name}", value, int(step))
            elif value is not None:
                self._writer.add_scalar(f"{kind}/{name}", float(value), int(step))

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_metrics(path: str | Path, kind: str | None = None) -> list[dict[str, Any]]:
    """Read the lines of a metrics file.

        file  ->  [{"kind": ..., "step": n, ...}, ...]

    Args:
        path: a file that `MetricsFile` wrote or is still writing.
        kind: `"train"`, `"evaluation"`, `"sample"`: only lines of that kind; None for all.

    Returns:
        A list of dictionaries in the order of the file. An incomplete line at the end is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line before the last is not a JSON object with a kind and a step.

    Example:
        >>> import tempfile, pathlib
        >>> from jax_attention import training
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "metrics.jsonl"
        ...     _ = path.write_text('{"kind": "train", "step": 1, "loss": 4.0}\\n{"kind": "tr')
        ...     training.read_metrics(path, "train")
        [{'kind': 'train', 'step': 1, 'loss': 4.0}]
    """
    path = Path(path)
    return [line for _, line in _parse(path) if kind is None or line["kind"] == kind]


def _parse(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Complete lines of the file, as bytes and as objects. Bytes after the last line break are an incomplete line."""
    *complete, _incomplete = path.read_bytes().split(b"\n")
    for number, raw in enumerate(complete, 1):
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            line = None
        fail_unless(
            isinstance(line, dict) and isinstance(line.get("kind"), str) and isinstance(line.get("step"), int),
            f"path: expected a JSON object with a kind and a step in line {number} of {path}, got {raw[:60]!r}. "
            "Nothing was changed. Repair or move the file.",
        )
        yield raw, line


def _drop_later(path: Path, step: int) -> None:
    """Remove later steps. The file is replaced by a new one, so that a kill leaves either the old or the new one."""
    if not path.exists():
        return
    kept = b"".join(raw + b"\n" for raw, line in _parse(path) if line["step"] <= step)
    with replaced_file(path) as file:
        file.write(kept)


def _to_json(value: Any) -> Any:
    """Convert array scalars to Python numbers, and NaN and infinities to None, which becomes null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
