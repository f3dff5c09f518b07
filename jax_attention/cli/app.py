"""The commands as one tyro application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import tyro

from jax_attention.cli.compare import Compare
from jax_attention.cli.evaluate import Evaluate
from jax_attention.cli.explain import Explain
from jax_attention.cli.export import Export
from jax_attention.cli.generate import Generate
from jax_attention.cli.rules import Rules
from jax_attention.cli.show import Show
from jax_attention.cli.train import Train

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Show, tyro.conf.subcommand("show")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Rules, tyro.conf.subcommand("rules")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
)


def parse(arguments: Sequence[str] | None = None) -> Command:
    """The command that the arguments describe; an unknown option ends the program with a message."""
    return tyro.cli(
        Command,
        prog="jax-attention",
        description="Attention rules, and a Transformer language model around them: train, use, look inside.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
    )
