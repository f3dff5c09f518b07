"""Every field of a model has a command-line option, and `--help` names it."""

from __future__ import annotations

import pytest

from jax_attention import models, normalizers
from jax_attention.cli.__main__ import main
from jax_attention.cli.arguments import parse
from jax_attention.cli.options import EXPRESSIONS, LEFT_OUT, argument_help, model_config
from jax_attention.positions import rotary


def test_none_overrides_the_preset():
    command = parse(
        [
            "train",
            "--preset",
            "gemma2",
            "--score-cap",
            "None",
            "--kv-heads",
            "None",
            "--score",
            "None",
            "--windows",
            "None",
        ]
    )
    config = model_config(command.preset, command.model, 7)
    assert (config.score_cap, config.kv_heads, config.score, config.windows) == (None, None, None, (None,))
    assert (config.logit_cap, config.head_size, config.vocab_size) == (30.0, 256, 7)


def test_fields_of_a_model_are_options():
    options = [
        "--position",
        "alibi",
        "--windows",
        "8",
        "None",
        "--normalize",
        "sparsemax()",
        "--dropout",
        "0.25",
        "--scan",
        "True",
    ]
    config = model_config("tiny", parse(["train", *options]).model, 7)
    assert (config.position, config.windows, config.dropout, config.scan) == ("alibi", (8, None), 0.25, True)
    assert config.normalize == normalizers.sparsemax()


def test_options_that_are_a_flag_or_a_word():
    options = ["--use-bias", "qkv", "out", "--qk-norm", "all_heads", "--local-rope", "rotary(base=100.0)"]
    config = model_config("tiny", parse(["train", *options]).model, 7)
    assert (config.use_bias, config.qk_norm, config.local_rope) == (("qkv", "out"), "all_heads", rotary(base=100.0))
    config = model_config("tiny", parse(["train", "--use-bias", "True", "--qk-norm", "True"]).model, 7)
    assert (config.use_bias, config.qk_norm, config.local_rope) == (True, True, None)


def test_help_names_every_field_of_the_model(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    fields = [name for name in models.LMConfig.__dataclass_fields__ if name not in LEFT_OUT]
    missing = [name for name in fields if f"--{name.replace('_', '-')}" not in printed]
    assert missing == []
    assert set(argument_help(models.LMConfig)) == set(models.LMConfig.__dataclass_fields__)
    assert set(EXPRESSIONS) <= set(fields)
