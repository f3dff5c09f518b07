"""Entry point of the command `jax-attention`, also run by `python -m jax_attention.cli`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    The status is that of the command (0 unless it returns another), 1 for an error that the user can correct, shown as
    one line without traceback, or 130 after Ctrl-C. With JAX_ATTENTION_TRACEBACK set, errors keep their traceback.
    """
    try:
        _commands()
        from jax_attention.training import TrainingDiverged
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("jax_attention"):
            raise
        return _print_error(
            f"expected the package {error.name}, which is not installed. Install the command line's packages: "
            "pip install 'jax_attention[train,viz]'"
        )
    try:
        return parse(arguments).run() or 0
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        if os.environ.get("JAX_ATTENTION_TRACEBACK"):
            raise
        return _print_error(str(error))
    except TypeError as error:
        # The library's messages about wrong arguments say ": expected ". Any other TypeError is a bug here, and its
        # traceback must stay.
        if ": expected " not in str(error):
            raise
        return _print_error(str(error))
    except KeyboardInterrupt:
        _print_error("interrupted")
        return 130


def parse(arguments: Sequence[str] | None = None) -> Any:
    """Read the arguments into a command; an unknown option ends the program with a message."""
    import tyro

    from jax_attention.cli import lineage
    from jax_attention.cli.train import Train

    def read(**default: Train) -> Any:
        return tyro.cli(
            _commands(),
            prog="jax-attention",
            description="Attention rules, and Transformer language models made of them: train, generate, inspect.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
            **default,
        )

    command = read()
    if isinstance(command, Train) and command.resume and command.out is not None:
        # Once more, with the settings of the run as defaults: options that are given take their place.
        command = read(default=dataclasses.replace(Train(), settings=lineage.saved_settings(command.out)))
    return command


def _commands() -> Any:
    """Union of the commands; imports them here, so that `main` can name a package that is not installed."""
    import tyro

    from jax_attention.cli.compare import Compare
    from jax_attention.cli.evaluate import Evaluate
    from jax_attention.cli.explain import Explain
    from jax_attention.cli.export import Export
    from jax_attention.cli.generate import Generate
    from jax_attention.cli.rules import Rules
    from jax_attention.cli.show import Show
    from jax_attention.cli.train import Train
    from jax_attention.cli.verify import Verify

    return (
        Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Generate, tyro.conf.subcommand("generate")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[Rules, tyro.conf.subcommand("rules")]
        | Annotated[Explain, tyro.conf.subcommand("explain")]
        | Annotated[Compare, tyro.conf.subcommand("compare")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
    )


def _print_error(message: str) -> int:
    sys.stderr.write(f"jax-attention: {message}\n")
    return 1


if __name__ == "__main__":
    from jax_attention_command import watch_signals

    watch_signals()
    sys.exit(main())
