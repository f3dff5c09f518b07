"""`export`: transformers and PEFT compute the same logits and tokens from the exported folder."""

from __future__ import annotations

import json
import shutil

import numpy as np
import peft
import pytest
import tokenizers
import transformers
from safetensors.numpy import load_file, save_file

from jax_attention import data, decoding
from jax_attention.cli import report
from jax_attention.cli.__main__ import main
from jax_attention.cli.run_folder import open_model, open_run
from tests.cli.hf_folder import logits, write_base
from tests.cli.quick_run import QUICK, TEXT, error_of
from tests.models import small
from tests.support.hf_parity import relative
from tests.support.tiers import slow
from tests.support.tokenizer_definitions import llama_decoder, marked, word_level
from tests.support.tolerances import FORWARD

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT reads this attribute of transformers."""
SENTENCE = "the lazy dog jumps over  天 and a quick fox.\n"


def export(run, out, *options):
    """Export a run to the folder `out` and return it."""
    assert main(["export", str(run), str(out), *options]) == 0
    return out


def check_logits(hf_model, run, step=None):
    """The logits of the Hugging Face model are those of the run's checkpoint."""
    ids = np.random.default_rng(0).integers(3, 250, (2, 13))
    jax_logits = small.jit(lambda model: model(ids).logits)(run.load(step)[0])
    assert relative(jax_logits, logits(hf_model, ids)) <= FORWARD["float32"]


def load_hf(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def check_tokens(folder, run):
    hf_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = run.tokenizer.encode(SENTENCE)
    assert hf_tokenizer(SENTENCE)["input_ids"] == ids.tolist()
    assert hf_tokenizer.decode(ids) == run.tokenizer.decode(ids)


@pytest.mark.slow
def test_a_whole_model_with_the_tokenizer_of_its_base(tuned, base, tmp_path, capsys):
    out, run = export(tuned, tmp_path / "out"), open_run(tuned)
    assert capsys.readouterr().out == f"llama of step 6 in {out}\n"
    check_logits(load_hf(out), run)
    check_tokens(out, run)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert json.loads((out / name).read_text()) == json.loads((base / name).read_text())
    config = json.loads((out / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, 1)


@pytest.mark.slow
def test_an_earlier_step(tuned, tmp_path):
    hf_model = load_hf(export(tuned, tmp_path / "out", "--step", "3"))
    check_logits(hf_model, open_run(tuned), 3)
    with pytest.raises(AssertionError):
        check_logits(hf_model, open_run(tuned), 6)


def test_adapters_load_in_peft_over_the_base(adapters, base, tmp_path, capsys):
    out, run = export(adapters, tmp_path / "out"), open_run(adapters)
    assert not (out / "config.json").exists()
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    hf_base = load_hf(base)
    ids = np.arange(3, 14)[None]
    base_logits = logits(hf_base, ids)
    hf_tuned = peft.PeftModel.from_pretrained(hf_base, out).eval()
    check_logits(hf_tuned, run)
    assert np.abs(logits(hf_tuned, ids) - base_logits).max() > 1e-2, "the adapters change the logits"
    check_tokens(out, run)
    capsys.readouterr()
    texts = []
    for folder in (adapters, out):
        assert main(["generate", str(folder), "--prompt", "the ", "--greedy", "--max-new-tokens", "9"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("step", [*slow(None), 3])
def test_adapters_merged(adapters, step, tmp_path):
    out = export(adapters, tmp_path / "out", "--merge", *([] if step is None else ["--step", str(step)]))
    assert not (out / "adapter_config.json").exists()
    hf_model = load_hf(out)
    check_logits(hf_model, open_run(adapters), step)
    if step is not None:
        with pytest.raises(AssertionError):
            check_logits(hf_model, open_run(adapters))


@pytest.mark.slow
def test_a_new_model_with_subwords(text, tmp_path, capsys):
    """The subword tokenizer becomes a tokenizer.json, and the exported folder can be trained further."""
    run, out = tmp_path / "run", tmp_path / "out"
    sizes = ["--preset", "gpt2", "--scan", "False", "--vocab-size", "270", "--tokenizer", "subwords"]
    assert main(["train", str(text), "--out", str(run), *QUICK, *sizes]) == 0
    export(run, out)
    check_logits(load_hf(out), open_run(run))
    check_tokens(out, open_run(run))
    assert len(transformers.AutoTokenizer.from_pretrained(out)) == 270
    again = ["train", str(text), "--from", str(out), "--out", str(tmp_path / "again"), "--steps", "0"]
    assert main([*again, "--sample-tokens", "0", "--batch-size", "4"]) == 0


@pytest.mark.slow
def test_a_character_tokenizer_has_no_hf_form(text, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    options = ["--activation", "swiglu", "--steps", "1", "--sample-tokens", "0"]
    assert main(["train", str(text), "--out", str(run), *QUICK, *options]) == 0
    capsys.readouterr()
    export(run, out, "--family", "llama")
    assert "characters, which transformers does not have" in capsys.readouterr().out
    assert data.load_tokenizer(out) == open_run(run).tokenizer
    texts = []
    for folder in (run, out):
        assert main(["generate", str(folder), "--prompt", "the ", "--greedy", "--max-new-tokens", "9"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_exports_that_are_refused(run, adapters, tmp_path, capsys):
    message = error_of(["export", str(run), str(tmp_path / "out")], capsys)
    assert "config: expected a model that some family of Hugging Face computes, got fields" in message
    assert not (tmp_path / "out").exists()
    assert "--merge: expected a run with --lora" in error_of(
        ["export", str(run), str(tmp_path / "out"), "--merge"], capsys
    )
    assert "expected a new or empty folder" in error_of(["export", str(adapters), str(run)], capsys)
    assert "expected the folder of a run" in error_of(["export", str(tmp_path), str(tmp_path / "out")], capsys)
    assert "that gpt2 cannot express: kv_heads" in error_of(
        ["export", str(adapters), str(tmp_path / "out"), "--merge", "--family", "gpt2"], capsys
    )


# --- Commands on a Hugging Face folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["gpt2", *slow("gemma2")])
def test_generate_prints_the_text_of_transformers(case, tmp_path, capsys):
    """The prompt begins with <s>, as in transformers; ids that the tokenizer lacks are never chosen."""
    hf_model = write_base(tmp_path, case)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    extra_ids = list(range(len(tokenizer), hf_model.config.vocab_size))
    prompt = tokenizer("the quick", return_tensors="pt")
    options = {"do_sample": False, "suppress_tokens": extra_ids, "pad_token_id": 0}
    tokens = hf_model.generate(
        prompt["input_ids"], attention_mask=prompt["attention_mask"], max_new_tokens=20, **options
    )
    expected = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert main(["generate", str(tmp_path), "--prompt", "the quick", "--greedy", "--max-new-tokens", "20"]) == 0
    assert capsys.readouterr().out == f"the quick{expected}\n"
    assert expected


@pytest.fixture(scope="module")
def spaced(base, tmp_path_factory):
    """The folder `base` with a tokenizer like Llama's, whose word 7 is a special token."""
    folder = tmp_path_factory.mktemp("models") / "spaced"
    shutil.copytree(base, folder)
    words = marked(["the", "quick", "brown", "fox", "jumps", "over", "lazy", "end"] + [f"w{i}" for i in range(290)])
    engine = tokenizers.Tokenizer.from_str(word_level(words, llama_decoder()).definition)
    engine.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    engine.add_special_tokens([words[7]])
    engine.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    (folder / "generation_config.json").unlink()
    return folder


@pytest.mark.parametrize("option", ["--greedy", *slow("--beams=2")])
def test_generate_keeps_the_space_between_prompt_and_text(spaced, option, capsys):
    """transformers#22710, #28776: the first new word was glued to the prompt."""
    command = ["generate", str(spaced), "--prompt", "the quick", option, "--max-new-tokens", "5"]
    assert main(command) == 0
    text = capsys.readouterr().out
    words = text.split()
    assert text == " ".join(words) + "\n"
    assert (words[:2], len(words)) == (["the", "quick"], 7)
    if option == "--greedy":
        assert main([*command, "--stop", f" {words[2]}"]) == 0
        assert capsys.readouterr().out == "the quick\n"


def test_generate_leaves_special_tokens_out_and_keeps_rules(spaced, tmp_path, capsys):
    """The model is made to prefer the special token, then "the"; no token may occur twice."""
    folder = tmp_path / "copy"
    shutil.copytree(spaced, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][:] = 0  # equal logits: the first allowed token is taken
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    command = ["generate", str(folder), "--prompt", "the", "--greedy", "--max-new-tokens", "8"]
    rules = ["--no-repeat-ngram-size", "1"]
    expected = " ".join(["the", "quick", "brown", "fox", "jumps", "over", "lazy", "end", "w0"])
    for more, printed in (
        (rules, expected),
        ([*rules, "--skip-special-tokens"], expected.replace(" end", "")),
        ([], "the" + " the" * 8),
    ):
        assert main([*command, *more]) == 0
        assert capsys.readouterr().out == f"{printed}\n"
    assert "--min-new-tokens: expected a model with stop tokens" in error_of(
        [*command, "--min-new-tokens", "2"], capsys
    )
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    for minimum, printed in (([], "the quick"), (["--min-new-tokens", "4"], "the quick fox jumps over")):
        assert main([*command, *rules, *minimum]) == 0
        assert capsys.readouterr().out == f"{printed}\n"


def test_generate_ends_at_the_stop_token(base, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(base, folder)
    command = ["generate", str(folder), "--prompt", "the quick", "--greedy", "--max-new-tokens", "9"]
    assert main(command) == 0
    text = capsys.readouterr().out
    opened = open_model(folder)
    sampler = decoding.sampler(decoding.greedy(), *report.tokenizer_ids_only(opened))
    ids = opened.tokenizer.encode("the quick")
    first = decoding.generate(opened.load()[0], ids, max_new_tokens=9, sampler=sampler).tokens[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, int(first)]}))
    assert main(command) == 0
    assert capsys.readouterr().out == "the quick\n" != text


@pytest.mark.slow
def test_evaluate_and_show_take_the_folder(base, text, tmp_path, capsys):
    assert main(["evaluate", str(base), "--files", str(text)]) == 0
    line = capsys.readouterr().out.splitlines()[1].split("\t")
    ids = open_model(base).tokenizer.encode(TEXT)
    assert line[1:3] == ["-", str(len(ids) - 1)]
    assert float(line[4]) == pytest.approx(float(line[3]) * (len(ids) - 1) / np.log(2) / len(TEXT), abs=1e-3)
    assert main(["show", str(base), "--text", "the lazy dog", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "attention.html").exists()


def test_options_that_a_hugging_face_folder_refuses(base, tmp_path, capsys):
    assert "--files: expected some" in error_of(["evaluate", str(base)], capsys)
    assert "--step: expected none" in error_of(["generate", str(base), "--prompt", "a", "--step", "3"], capsys)
    assert "model's context, got 65" in error_of(["evaluate", str(base), "--files", "x", "--length", "65"], capsys)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "nobody/nothing"}')
    message = error_of(["generate", str(tmp_path), "--prompt", "a"], capsys)
    assert "base_model_name_or_path: expected the folder of the base model" in message
