"""Names in the folder of checkpoints: complete ones, and what killed or damaged writes left.

STEP/            a checkpoint; complete if Orbax's metadata is in it
*.orbax-…-tmp    one that Orbax is writing
STEP.deleted     one that is being deleted
STEP.damaged     one that could not be restored
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

METADATA = "_CHECKPOINT_METADATA"
"""File that Orbax writes into a complete checkpoint."""
UNFINISHED, DELETED, DAMAGED = ".orbax-checkpoint-tmp", ".deleted", ".damaged"

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
