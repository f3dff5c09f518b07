"""`jax-attention verify`: read every byte of a run and compare it with what was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jax_attention.cli import run_folder, run_identity
from jax_attention.cli.output import table
from jax_attention.cli.own_code import OwnCode
from jax_attention.training.checkpoint_folder import numbered_steps


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check the tokens and all checkpoints of a run by their checksums; exit status 1 if something is wrong.

    Args:
        folder: folder of a run.
        code: code of your own that may run.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> int:
        """Print a line for each file; return 0 if all are as they were written."""
        run = run_folder.open_run(
            self.folder, self.code.modules
        )  # checks the config, and the tokenizer by its fingerprint
        results = {run_folder.CONFIG: "", run_folder.TOKENIZER: ""}
        if run.identity is None:
            run.corpus()
            results[run_folder.CONFIG] = "ok, but without identity: an earlier version wrote it"
        else:
            results |= run_identity.find_changes(run.folder, run.identity)
        checkpoints = run.checkpoints
        for step in numbered_steps(checkpoints.folder):
            try:
                checkpoints.verify(step)
                results[f"{run_folder.CHECKPOINTS}/{step}"] = ""
            except (ValueError, FileNotFoundError) as error:
                results[f"{run_folder.CHECKPOINTS}/{step}"] = str(error)
        table(("file", "result"), [(name, problem or "ok") for name, problem in results.items()])
        return 0 if all(problem.startswith("ok") or not problem for problem in results.values()) else 1
