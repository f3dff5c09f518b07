"""Names in the folder of checkpoints: complete ones, and what killed or damaged writes left.

STEP/            a checkpoint; complete if Orbax's metadata is in it
*.orbax-…-tmp    one that Orbax is writing
STEP.deleted     one that is being deleted
STEP.damaged     one that could not be restored
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

METADATA = "_CHECKPOINT_METADATA"
"""File that Orbax writes into a complete checkpoint."""
UNFINISHED, DELETED, DAMAGED = ".orbax-checkpoint-tmp", ".deleted", ".damaged"

NONE = "Give the folder that training wrote checkpoints to, or start without resuming."
CHOOSE = "Choose one of them; a training deletes all but the newest few and the best."

LEFTOVER = rf"\d+({re.escape(UNFINISHED)}.*|{re.escape(DELETED)})"
"""Names that killed processes leave."""


def numbered_steps(folder: Path) -> list[int]:
    """Steps that name something in the folder, complete or not, ascending."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name == str(int(name)))


def complete_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending.

    `orbax.is_orbax_checkpoint` is not used: it takes an empty folder for a checkpoint.
    """
    return [step for step in numbered_steps(folder) if (folder / str(step) / METADATA).is_file()]


class DeletedCheckpoint(FileNotFoundError):
    """Error for a checkpoint that was deleted while it was read: by its run, which trains, or by the user."""


def find_step(folder: Path, step: int | None) -> int:
    """The step if there is a complete checkpoint of it; the newest one if None."""
    steps = complete_steps(folder)
    if step is None and steps:
        return steps[-1]
    if step in steps:
        return step
    content = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) if folder.is_dir() else ""
    expected = "a complete checkpoint" if step is None else f"a complete checkpoint of step {step}"
    got = f"the steps {steps}" if steps else f"none (the folder holds {content})" if content else "none"
    raise FileNotFoundError(f"folder: expected {expected} in {folder}, got {got}. {CHOOSE if steps else NONE}")


@contextlib.contextmanager
def deletion_reported(path: Path) -> Iterator[None]:
    """What is read of a checkpoint while another process deletes it can be anything; say that it is gone."""
    try:
        yield
    except Exception:
        steps = complete_steps(path.parent)
        if int(path.name) in steps:
            raise
        raise DeletedCheckpoint(
            f"step: expected the checkpoint {path} to stay while it is read, got none. Now there are {steps}. {CHOOSE}"
        ) from None


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left unfinished."""
    for path in list(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and re.fullmatch(LEFTOVER, path.name):
            shutil.rmtree(path)


def delete(folder: Path, step: int) -> None:
    """Delete a checkpoint. Renaming is atomic, deleting a folder is not: a kill in between would leave half of it."""
    path = folder / str(step)
    shutil.rmtree(path.rename(path.with_name(path.name + DELETED)))


def set_aside(folder: Path, step: int) -> None:
    """Rename a damaged checkpoint, so that it is not read again and its step can be saved again."""
    remove_set_aside(folder, step)
    (folder / str(step)).rename(folder / f"{step}{DAMAGED}")


def remove_set_aside(folder: Path, step: int) -> None:
    """Remove the damaged checkpoint of a step that has been saved again."""
    shutil.rmtree(folder / f"{step}{DAMAGED}", ignore_errors=True)
