"""Encoder-decoders on the command line: `generate --source` writes the target that transformers writes."""

from __future__ import annotations

import pytest
import torch
import transformers

from jax_attention.cli.__main__ import main
from tests.cli.hf_folder import EXTRA_IDS, write_tokenizer
from tests.cli.quick_run import error_of
from tests.support import hf_models

SOURCE = "the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("t5")
    kind, fields = hf_models.SHALLOW["t5, three layers"]
    size = write_tokenizer(path)
    hf_model = hf_models.make_model(kind, fields | {"vocab_size": size + EXTRA_IDS, "eos_token_id": 1})
    with torch.no_grad():
        hf_model.shared.weight[size:] = 0  # ids without text are never the likeliest, as `generate` leaves them out
    hf_model.save_pretrained(path)
    return path


def torch_text(folder, **options):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    hf_model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    ids = tokenizer(SOURCE, return_tensors="pt").input_ids
    tokens = hf_model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=12,
        use_cache=False,  # whose layers transformers counts by the encoder
        **options,
    )
    return tokenizer.decode(tokens[0, 1:])


def generate(folder, *options):
    return ["generate", str(folder), "--source", SOURCE, "--max-new-tokens", "12", *options]


def test_the_text_is_that_of_transformers(folder, capsys):
    assert main(generate(folder, "--greedy")) == 0
    assert capsys.readouterr().out.removesuffix("\n") == torch_text(folder).removesuffix("</s>")


@pytest.mark.slow
def test_beam_search_is_that_of_transformers(folder, capsys):
    assert main(generate(folder, "--beams", "3")) == 0
    assert capsys.readouterr().out.removesuffix("\n") == torch_text(folder, num_beams=3).removesuffix("</s>")


def test_a_target_may_have_a_beginning(folder, capsys):
    assert main(generate(folder, "--greedy")) == 0
    whole = capsys.readouterr().out
    assert main(generate(folder, "--greedy", "--prompt", "fox")) == 0
    begun = capsys.readouterr().out
    assert begun.startswith("fox")
    assert begun != whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "-", "--prompt", "-"], "--prompt, --source: expected one of them from standard input, got both."),
        (["--source", "a" * 2000], "--source: expected 1 to 512 tokens"),
        (["--prompt", "a"], "got a t5, which reads a source first"),
        ([], "--prompt: expected a text to continue, got none. Give --prompt TEXT."),
    ],
)
def test_wrong_options(folder, capsys, options, message):
    assert message in error_of(["generate", str(folder), *options], capsys)
