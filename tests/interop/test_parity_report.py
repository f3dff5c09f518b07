"""Parity reports: sound models differ by rounding, also deep ones and in bfloat16; text, table and page; errors."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from jax_attention import data, interop, models
from tests.models import small
from tests.support import hf_faults, hf_models
from tests.support.tiers import slow, slow_except

POINTS = {
    "gpt2": ["attention norm", "attention", "feed-forward norm", "feed-forward", "block", "stream"],
    "qwen3": ["attention norm", "query norm", "key norm", "attention", "feed-forward norm", "feed-forward"],
    "olmo2": ["query norm", "key norm", "attention", "norm after attention", "feed-forward", "norm after feed-forward"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a sound GPT-2 and a tokenizer."""
    path = tmp_path_factory.mktemp("gpt2")
    hf_models.build("gpt2").save_pretrained(path)
    data.Characters("".join(map(chr, range(97, 97 + hf_models.V)))).save(path)
    return path


@pytest.fixture(scope="module")
def sound(folder):
    return interop.compare(folder)


@pytest.fixture(scope="module")
def wrong(folder):
    """The report on a model with another GELU in layer 1."""
    hf_model = hf_faults.in_hf(
        hf_models.build("gpt2"), lambda m: setattr(m.transformer.h[1].mlp, "act", torch.nn.GELU())
    )
    return interop.compare(hf_model)


# --- Rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except(("gpt2",), hf_models.CASES))
def test_sound_models_differ_by_rounding(name):
    hf_model = hf_models.build(name)
    report = interop.compare(hf_model)
    assert (report.verdict, report.cause, report.equal) == ("rounding", None, True)
    assert max(row.used for row in report.rows) < 0.5
    points = [row.point for row in report.rows if row.layer == 0]
    assert points[: len(POINTS.get(name, []))] == POINTS.get(name, [])
    layers = hf_model.config.num_hidden_layers
    assert [row.layer for row in report.rows if row.point == "stream"] == list(range(layers))
    assert [row.point for row in report.rows if row.layer is None] == ["embedding", "final norm", "head", "logits"]


@pytest.mark.parametrize("name", ["gpt2", *slow("gemma2")])
def test_sound_models_in_bfloat16_differ_by_rounding(name):
    report = interop.compare(hf_models.build(name, torch.bfloat16), dtype=None)
    assert (report.verdict, report.dtype) == ("rounding", "bfloat16")
    assert report.tolerance == (8 * 2.0**-7 + 2.0**-23) / 2


@pytest.mark.slow
def test_a_fault_is_found_in_bfloat16():
    hf_model = hf_models.build("gpt2", torch.bfloat16)
    faulty = hf_faults.in_hf(hf_model, lambda m: setattr(m.transformer.h[1].attn, "scaling", 1.0))
    report = interop.compare(faulty, dtype="bfloat16")
    assert (report.suspect.layer, report.cause.name) == (1, "score scale")


@pytest.fixture(scope="module")
def deep():
    kind, fields = hf_models.CASES["llama 2"]
    return hf_models.make_model(kind, fields | {"num_hidden_layers": 24})


@pytest.mark.slow
def test_in_24_layers_rounding_uses_no_more_than_in_3(deep, tmp_path):
    deep.save_pretrained(tmp_path)
    report = interop.compare(deep, interop.load(tmp_path, scan=True))
    assert report.equal
    streams = [row for row in report.rows if row.point == "stream"]
    assert len(streams) == 24
    assert max(row.used for row in streams) < 0.3
    assert streams[-1].difference.max_abs > streams[0].difference.max_abs  # rounding adds up over the layers


@pytest.mark.slow
def test_in_24_layers_a_fault_is_named_by_its_layer(deep, tmp_path):
    deep.save_pretrained(tmp_path)
    faulty = hf_faults.in_hf(deep, lambda m: setattr(m.model.layers[17].self_attn, "scaling", 1.0))
    report = interop.compare(faulty, interop.load(tmp_path, scan=True))
    assert (
        report.verdict
        == "suspicious from layer 17, attention: scores are scaled by 1 in transformers, by 1 / sqrt(H) in JAX"
    )


def test_nan_is_not_equal():
    hf_model = hf_faults.in_hf(hf_models.build("gpt2"), lambda m: m.transformer.h[1].mlp.c_fc.bias.fill_(float("nan")))
    report = interop.compare(hf_model)
    assert (report.suspect.layer, report.suspect.point, report.cause) == (1, "feed-forward", None)
    assert "nan" in report.html()


# --- Tokens and models -----------------------------------------------------------------------------------------------


def test_a_model_in_memory_is_left_as_it_was(folder):
    hf_model = hf_models.build("gpt2")
    hf_model.transformer.h[1].train()
    assert interop.compare(hf_model).equal  # without its dropout
    modes = {module.training for module in hf_model.transformer.h[1].modules()}
    assert (modes, hf_model.transformer.h[0].training) == ({True}, False)
    assert not any(module._forward_hooks for module in hf_model.modules())


def test_text_is_encoded_and_both_models_read_it(folder, sound):
    text = interop.compare(folder, text="abcdefg")
    ids = interop.compare(folder, tokens=np.arange(7))
    assert text == ids
    assert text.equal
    assert text.rows != sound.rows


@pytest.mark.slow
def test_attended_padding_is_found_in_tokens_of_the_caller():
    kind, fields = hf_models.CASES["llama 2"]
    hf_model = hf_faults.in_hf(
        hf_models.make_model(kind, fields | {"num_hidden_layers": 2}),
        lambda m: hf_faults.change_mask(m.model.layers[1].self_attn, hf_faults.without_padding),
    )
    padded = interop.compare(hf_model, tokens=np.array([[-1, -1, 3, 4, 5, 6]]))
    assert (padded.suspect.layer, padded.suspect.point) == (1, "attention")
    # As many tokens as before, so that nothing is compiled again.
    assert interop.compare(hf_model, tokens=np.array([[1, 2, 3, 4, 5, 6]])).equal


def test_random_tokens_leave_the_window_or_a_note_says_that_they_do_not():
    kind, fields = hf_models.CASES["mistral"]
    near = hf_models.make_model(kind, fields | {"sliding_window": 20, "num_hidden_layers": 1})
    assert interop.compare(near).notes == ()
    # As many tokens as before, so that nothing is compiled again.
    tokens = np.where(np.arange(24) < 20, np.arange(24), -1)
    report = interop.compare(near, tokens=np.stack([tokens, tokens]))
    assert report.notes == ("A window of 20 keys is not left by 20 tokens: its size is not compared.",)
    assert report.notes[0] in str(report)
    assert report.notes[0] in report.html()


# --- Text, table, page -----------------------------------------------------------------------------------------------


def test_the_text_has_every_row_and_the_verdict_last(sound, wrong):
    lines = str(sound).splitlines()
    assert len(lines) == 2 + len(sound.rows) + 1
    assert lines[-1] == "rounding"
    assert "NOT equal" not in str(sound)
    first = next(line for line in str(wrong).splitlines() if "NOT equal" in line)
    assert re.match(r" *1 feed-forward ", first)
    assert str(wrong).endswith(wrong.verdict)


def test_the_table_has_every_row(sound):
    from rich.console import Console

    assert sound.table().row_count == len(sound.rows)
    console = Console(width=120)
    with console.capture() as printed:
        console.print(sound.table())
    assert "feed-forward norm" in printed.get()
    assert "rounding" in printed.get()


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in ("meta", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag == "line" or self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing(sound, wrong):
    for report in (sound, wrong):
        page = Page(report.html())
        assert page.open == []
        assert page.tags.count("tr") == 1 + len(report.rows)
        assert page.tags.count("rect") == 5  # embedding, three layers, head
        assert page.tags.count("circle") == 4  # three streams, logits
        assert {"script", "img", "link"}.isdisjoint(page.tags)
        assert {name for name, _ in page.attributes}.isdisjoint({"src", "href"})
        assert "url(" not in report.html()
    assert ("class", "bar wrong") not in Page(sound.html()).attributes
    assert Page(wrong.html()).attributes.count(("class", "bar wrong")) == 1
    assert "Suspicious from layer 1, feed-forward: the activation is the exact GELU (erf)" in wrong.html()


def test_titles_and_notes_are_escaped(sound):
    page = dataclasses.replace(sound, title="<script>", notes=("a < b",)).html()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "a &lt; b" in page


# --- Wrong calls -----------------------------------------------------------------------------------------------------


def test_a_missing_folder_and_an_unknown_family_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a model folder"):
        interop.compare(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bloom"}')
    with pytest.raises(ValueError, match=r"expected a model_type among gpt2, .* got 'bloom'"):
        interop.compare(tmp_path)


@pytest.mark.parametrize(("absent", "message"), [("torch", "PyTorch"), ("transformers", "package")])
def test_an_absent_package_is_named_with_the_extra(folder, monkeypatch, absent, message):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ImportError, match=rf"{absent}: expected .*{message}.*pip install jax_attention\[interop\]"):
        interop.compare(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": [[1, 2]], "text": "ab"}, "text: expected tokens or text, got both"),
        ({"tokens": [1, hf_models.V]}, "tokens: expected ids below vocab_size = 37, got 37"),
        ({"tokens": [1, -1, 2]}, "tokens: expected tokens in one piece .* padding between them"),
        ({"tokens": [[1, 2], [-1, -1]]}, "tokens: expected tokens in one piece .* rows without tokens"),
        ({"source": [1, 2]}, "source: expected None, as this model reads one sequence, got a source"),
        ({"tokens": np.ones(65, int)}, "tokens: expected at most context = 64, got 65"),
        ({"tokens": []}, "tokens: expected integers"),
        ({"tokens": [0.5]}, "tokens: expected integers"),
    ],
)
def test_wrong_tokens_are_refused(folder, options, message):
    options = {name: x if name == "text" else np.asarray(x) for name, x in options.items()}
    with pytest.raises((ValueError, TypeError), match=message):
        interop.compare(folder, **options)


def test_wrong_models_are_refused(folder):
    hf_model = hf_models.build("gpt2")
    with pytest.raises(TypeError, match="hf_model: expected a folder or a model of transformers, got Linear"):
        interop.compare(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="language-model head, GPT2LMHeadModel, got GPT2Model"):
        interop.compare(hf_model.transformer)
    with pytest.raises(TypeError, match=r"expected a model in float32, got one in bfloat16.*dtype=None"):
        interop.compare(hf_models.build("gpt2", torch.bfloat16))
    with pytest.raises(ValueError, match="got text, and no folder with a tokenizer"):
        interop.compare(hf_model, text="ab")
    # Only the structure of these models matters: `small.filled` makes them without compiling the initialisation.
    config = models.gpt2(vocab_size=hf_models.V, width=hf_models.D, depth=2, num_heads=4)
    with pytest.raises(ValueError, match="jax_model: expected a model of the sizes of hf_model, depth = 3, got 2"):
        interop.compare(hf_model, small.filled(lambda: models.create(config)))
    post = dataclasses.replace(interop.load(folder).config, norm_place="post")
    normless = small.filled(lambda: models.create(post))
    with pytest.raises(ValueError, match="jax_model: expected a model with a last norm"):
        interop.compare(hf_model, normless)
    kind, fields = hf_models.CASES["llama 2"]
    tall = models.llama(vocab_size=hf_models.V, width=hf_models.D, depth=3, num_heads=2, kv_heads=1, qk_norm=True)
    with pytest.raises(
        ValueError, match=r"with the parts of hf_model, got one with blocks.rest.0.attention.query_norm"
    ):
        interop.compare(hf_models.make_model(kind, fields), small.filled(lambda: models.create(tall)))
