"""Sound models of every family differ by rounding, in depth and in bfloat16 too; what a report shows; wrong calls."""

from __future__ import annotations

import dataclasses
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from jax_attention import data, interop, models
from tests.interop import hf_models, planted
from tests.models import small
from tests.support.tiers import slow, slow_except

PARTS = {
    "gpt2": ["attention norm", "attention", "feed-forward norm", "feed-forward", "block", "stream"],
    "qwen3": ["attention norm", "query norm", "key norm", "attention", "feed-forward norm", "feed-forward"],
    "olmo2": ["query norm", "key norm", "attention", "norm after attention", "feed-forward", "norm after feed-forward"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sound GPT-2 with a tokenizer beside it."""
    path = tmp_path_factory.mktemp("gpt2")
    hf_models.build("gpt2").save_pretrained(path)
    data.Characters("".join(map(chr, range(97, 97 + hf_models.V)))).save(path)
    return path


@pytest.fixture(scope="module")
def sound(folder):
    return interop.compare(folder)


@pytest.fixture(scope="module")
def wrong(folder):
    """The report on a GELU in layer 1."""
    theirs = planted.in_theirs(
        hf_models.build("gpt2"), lambda m: setattr(m.transformer.h[1].mlp, "act", torch.nn.GELU())
    )
    return interop.compare(theirs)


# --- Rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slow_except(("gpt2",), hf_models.CASES))
def test_sound_models_differ_by_rounding(name):
    theirs = hf_models.build(name)
    report = interop.compare(theirs)
    assert (report.verdict, report.cause, report.equal) == ("rounding", None, True)
    assert max(row.used for row in report.rows) < 0.5
    found = [row.point for row in report.rows if row.layer == 0]
    assert found[: len(PARTS.get(name, []))] == PARTS.get(name, [])
    layers = theirs.config.num_hidden_layers
    assert [row.layer for row in report.rows if row.point == "stream"] == list(range(layers))
    assert [row.point for row in report.rows if row.layer is None] == ["embedding", "final norm", "head", "logits"]


@pytest.mark.parametrize("name", ["gpt2", *slow("gemma2")])
def test_sound_models_in_bfloat16_differ_by_its_rounding(name):
    report = interop.compare(hf_models.build(name, torch.bfloat16), dtype=None)
    assert (report.verdict, report.dtype) == ("rounding", "bfloat16")
    assert report.tolerance == (8 * 2.0**-7 + 2.0**-23) / 2


@pytest.mark.slow
def test_a_fault_is_found_in_bfloat16():
    theirs = hf_models.build("gpt2", torch.bfloat16)
    bad = planted.in_theirs(theirs, lambda m: setattr(m.transformer.h[1].attn, "scaling", 1.0))
    report = interop.compare(bad, dtype="bfloat16")
    assert (report.suspect.layer, report.cause.name) == (1, "score scale")


@pytest.fixture(scope="module")
def deep():
    kind, fields = hf_models.CASES["llama 2"]
    return hf_models.made(kind, fields | {"num_hidden_layers": 24})


@pytest.mark.slow
def test_in_24_layers_rounding_uses_no_more_than_in_3(deep, tmp_path):
    deep.save_pretrained(tmp_path)
    report = interop.compare(deep, interop.load(tmp_path, scan=True))
    assert report.equal
    streams = [row for row in report.rows if row.point == "stream"]
    assert len(streams) == 24
    assert max(row.used for row in streams) < 0.3
    assert streams[-1].difference.max_abs > streams[0].difference.max_abs  # that rounding adds up is seen, and allowed


@pytest.mark.slow
def test_in_24_layers_a_fault_is_named_by_its_layer(deep, tmp_path):
    deep.save_pretrained(tmp_path)
    bad = planted.in_theirs(deep, lambda m: setattr(m.model.layers[17].self_attn, "scaling", 1.0))
    report = interop.compare(bad, interop.load(tmp_path, scan=True))
    assert report.verdict == "suspicious from layer 17, attention: theirs scales scores by 1, ours by 1 / sqrt(H)"


def test_nan_is_not_equal():
    theirs = planted.in_theirs(hf_models.build("gpt2"), lambda m: m.transformer.h[1].mlp.c_fc.bias.fill_(float("nan")))
    report = interop.compare(theirs)
    assert (report.suspect.layer, report.suspect.point, report.cause) == (1, "feed-forward", None)
    assert "nan" in report.html()


# --- What is run -----------------------------------------------------------------------------------------------------


def test_a_model_in_memory_is_left_as_it_was(folder):
    theirs = hf_models.build("gpt2")
    theirs.transformer.h[1].train()
    assert interop.compare(theirs).equal  # without its dropout
    modes = {module.training for module in theirs.transformer.h[1].modules()}
    assert (modes, theirs.transformer.h[0].training) == ({True}, False)
    assert not any(module._forward_hooks for module in theirs.modules())


def test_tokens_and_text_are_what_both_read(folder, sound):
    text = interop.compare(folder, text="abcdefg")
    given = interop.compare(folder, tokens=np.arange(7))
    assert text == given
    assert text.equal
    assert text.rows != sound.rows


@pytest.mark.slow
def test_padding_that_is_seen_is_not_hidden_by_the_choice_of_tokens():
    kind, fields = hf_models.CASES["llama 2"]
    theirs = planted.in_theirs(
        hf_models.made(kind, fields | {"num_hidden_layers": 2}),
        lambda m: planted.remasked(m.model.layers[1].self_attn, planted.without_padding),
    )
    padded = interop.compare(theirs, tokens=np.array([[-1, -1, 3, 4, 5, 6]]))
    assert (padded.suspect.layer, padded.suspect.point) == (1, "attention")
    # As many tokens as before, so that nothing is compiled again.
    assert interop.compare(theirs, tokens=np.array([[1, 2, 3, 4, 5, 6]])).equal


def test_random_tokens_leave_the_window_or_say_that_they_do_not():
    kind, fields = hf_models.CASES["mistral"]
    near = hf_models.made(kind, fields | {"sliding_window": 20, "num_hidden_layers": 1})
    assert interop.compare(near).notes == ()
    # As many tokens as before, so that nothing is compiled again.
    tokens = np.where(np.arange(24) < 20, np.arange(24), -1)
    report = interop.compare(near, tokens=np.stack([tokens, tokens]))
    assert report.notes == ("A window of 20 keys is not left by 20 tokens: its size is not compared.",)
    assert report.notes[0] in str(report)
    assert report.notes[0] in report.html()


# --- What is shown ---------------------------------------------------------------------------------------------------


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
    assert "Suspicious from layer 1, feed-forward: theirs bends by the exact GELU (erf)" in wrong.html()


def test_what_comes_from_outside_is_escaped(sound):
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


@pytest.mark.parametrize(("absent", "said"), [("torch", "PyTorch"), ("transformers", "package")])
def test_an_absent_package_is_named_with_the_extra(folder, monkeypatch, absent, said):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(ImportError, match=rf"{absent}: expected .*{said}.*pip install jax_attention\[interop\]"):
        interop.compare(folder)


@pytest.mark.parametrize(
    ("options", "said"),
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
def test_wrong_tokens_are_refused(folder, options, said):
    options = {name: x if name == "text" else np.asarray(x) for name, x in options.items()}
    with pytest.raises((ValueError, TypeError), match=said):
        interop.compare(folder, **options)


def test_wrong_models_are_refused(folder):
    theirs = hf_models.build("gpt2")
    with pytest.raises(TypeError, match="theirs: expected a folder or a model of transformers, got Linear"):
        interop.compare(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="language-model head, GPT2LMHeadModel, got GPT2Model"):
        interop.compare(theirs.transformer)
    with pytest.raises(TypeError, match=r"expected a model in float32, got one in bfloat16.*dtype=None"):
        interop.compare(hf_models.build("gpt2", torch.bfloat16))
    with pytest.raises(ValueError, match="got text, and no folder with a tokenizer"):
        interop.compare(theirs, text="ab")
    # Only the structure of these models matters, so their numbers are made without compiling the initialisation.
    config = models.gpt2(vocab_size=hf_models.V, width=hf_models.D, depth=2, num_heads=4)
    with pytest.raises(ValueError, match="ours: expected a model of the sizes of theirs, depth = 3, got 2"):
        interop.compare(theirs, small.filled(lambda: models.create(config)))
    post = dataclasses.replace(interop.load(folder).config, norm_place="post")
    normless = small.filled(lambda: models.create(post))
    with pytest.raises(ValueError, match="ours: expected a model with a last norm"):
        interop.compare(theirs, normless)
    kind, fields = hf_models.CASES["llama 2"]
    tall = models.llama(vocab_size=hf_models.V, width=hf_models.D, depth=3, num_heads=2, kv_heads=1, qk_norm=True)
    with pytest.raises(ValueError, match=r"parts are those of theirs, got one with blocks.rest.0.attention.query_norm"):
        interop.compare(hf_models.made(kind, fields), small.filled(lambda: models.create(tall)))
