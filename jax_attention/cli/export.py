"""`jax-attention export`: write the model of a run as a folder for transformers, or its adapters for PEFT."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from jax_attention import interop, nn
from jax_attention.cli import pretrained, run_folder
from jax_attention.cli.output import print_line
from jax_attention.cli.own_code import OwnCode
from jax_attention.core.checks import fail_unless
from jax_attention.data.tokenizers.subwords import DEFINITION
from jax_attention.data.tokenizers.tokenizer import SETTINGS
from jax_attention.interop.hf.token_ids import token_ids


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write a run as a Hugging Face folder with its tokenizer, or the adapters of a run with --lora for PEFT.

    Args:
        folder: folder of a run.
        out: folder to write, new or empty.
        step: step of the checkpoint; the one with the best validation loss if None.
        merge: add the adapters to the weights and write the whole model.
        family: model_type to write; that of --from, else the first family that has such a model.
        code: code of your own that may run.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    step: int | None = None
    merge: bool = False
    family: str | None = None
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> None:
        """Write the folder and print its contents."""
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise FileExistsError(f"out: expected a new or empty folder, got {str(self.out)!r}, which holds something.")
        run = run_folder.open_run(self.folder, self.code.modules)
        trained, step = run.load_trained(self.step)
        contents = self.write(run, trained)
        write_tokenizer(run, self.out)
        print_line(f"{contents} of step {step} in {self.out}")

    def write(self, run: run_folder.Run, trained: Any) -> str:
        """Write arrays and config; return a name for them: the family, or "adapters for" the base folder."""
        origin = run.origin or {}
        family = self.family or origin.get("family")
        adapters = isinstance(trained, nn.Adapters)
        fail_unless(adapters or not self.merge, "merge: expected a run with --lora, got one without. Leave it out.")
        if adapters and not self.merge:
            interop.save_adapters(run.base(), trained, self.out, family=family, base=origin["folder"])
            return f"adapters for {origin['folder']}"
        model = nn.apply_adapters(run.base(), trained) if adapters else trained
        fields = token_ids(run.folder / run_folder.ORIGIN) if origin else {}
        return interop.save(model, self.out, family=family, fields=fields)


def write_tokenizer(run: run_folder.Run, out: Path) -> None:
    """Write `tokenizer.json` with the files that accompany it, or a tokenizer that only this library reads."""
    contents = run.tokenizer.contents()
    if DEFINITION not in contents:
        run.tokenizer.save(out)
        print_line(
            f"tokenizer  {run.tokenizer.kind}, which transformers does not have; data.load_tokenizer reads {SETTINGS}"
        )
        return
    (out / DEFINITION).write_bytes(contents[DEFINITION])
    if run.origin is not None:
        pretrained.copy_files(run.folder / run_folder.ORIGIN, out)
        return
    # Without this file transformers chooses a tokenizer class by the model's family, and GPT-2's adds a token.
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": run.config.context}
    run_folder.write_json(out / "tokenizer_config.json", about | {"clean_up_tokenization_spaces": False})
