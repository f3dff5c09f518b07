"""`train --from`: a Hugging Face model trained further, as a whole or with adapters, with its tokenizer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jax_attention import interop, nn, training
from jax_attention.cli.__main__ import main
from jax_attention.cli.run_folder import open_run
from tests.cli.hf_folder import EXTRA_IDS, FINE_TUNE, write_tokenizer
from tests.cli.quick_run import error_of, files_in
from tests.models import small


def evaluations(run):
    entries = training.read_metrics(run / "metrics.jsonl")
    return [(entry["step"], entry["loss"]) for entry in entries if entry["kind"] == "evaluation"]


def assert_same(one, other, tolerance=0.0):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_a_run_is_a_plain_loop_over_the_loaded_model(tuned, base):
    run = open_run(tuned)
    source, optimizer = run.corpus().train, optax.adamw(3e-3, b2=0.99, weight_decay=0.0)
    model = interop.load(base)
    state = optimizer.init(model)

    @jax.jit
    def step(model, state, batch):
        def loss(model):
            logits = model(batch.tokens).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets).mean()

        updates, state = optimizer.update(jax.grad(loss)(model), state, model)
        return optax.apply_updates(model, updates), state

    for n in range(6):
        batch = source.batch(0, n, 4)
        assert batch.tokens.shape == (4, 16)
        assert np.all(np.asarray(batch.weights) == 1)
        model, state = step(model, state, batch)
    assert_same(run.load(6)[0], model, 1e-4)
    assert run.config.context == 64, "the context of the model is unchanged"


@pytest.mark.slow
def test_losses_fall(tuned, adapters):
    for run in (tuned, adapters):
        (_, middle), (_, last) = evaluations(run)
        assert last < middle


@pytest.mark.slow
def test_losses_start_at_the_base_model_and_fall(tuned, adapters, base, capsys):
    capsys.readouterr()
    for run in (tuned, adapters):
        text = str(json.loads((run / "config.json").read_text())["settings"]["files"][0])
        (_, middle), (_, last) = evaluations(run)
        losses = []
        for folder in (base, run):
            assert main(["evaluate", str(folder), "--files", text, "--length", "16"]) == 0
            losses.append(float(capsys.readouterr().out.splitlines()[1].split("\t")[3]))
        assert last < middle < losses[0]
        assert losses[1] < losses[0] - 0.5


def test_only_adapters_are_trained_and_saved(adapters, base):
    run = open_run(adapters)
    leaves = run.checkpoints.read(6)["leaves"]
    kinds = {re.sub(r"\.\d+\.", ".0.", name) for name in leaves if name.startswith("model/")}
    layers = ["attention.projections.joined", "feed_forward.down"]
    assert kinds == {f"model/{side}/blocks.scanned.0.{layer}" for side in ("down", "up") for layer in layers}
    sizes = {name: int(np.prod(x["stored"])) for name, x in leaves.items()}
    trained = sum(n for name, n in sizes.items() if name.startswith("model/"))
    assert 0 < sum(n for name, n in sizes.items() if name.startswith("optimizer")) - 2 * trained < 10
    trained_adapters, _ = run.load_trained(6)
    assert trained_adapters.scale == 2.0
    assert all(np.abs(x).min(axis=(1, 2)).max() > 0 for x in trained_adapters.up.values()), "in every layer"
    model = nn.apply_adapters(interop.load(base, scan=True), trained_adapters)
    ids = run.tokenizer.encode("the lazy dog")
    logits = small.jit(lambda *both: [model(ids).logits for model in both])(run.load(6)[0], model)
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tuned", "adapters"])
def test_a_resumed_run_ends_at_the_same_numbers(kind, request, tmp_path):
    """A fully trained model needs no base any more; adapters do."""
    run, copy = request.getfixturevalue(kind), tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "6")
    if kind == "tuned":
        config = json.loads((copy / "config.json").read_text())
        config["origin"]["folder"] = str(tmp_path / "gone")
        (copy / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", "--out", str(copy)]) == 0
    assert_same(open_run(run).load_trained(6)[0], open_run(copy).load_trained(6)[0])
    assert evaluations(run) == evaluations(copy)


@pytest.mark.slow
def test_a_run_without_a_checkpoint_starts_again(adapters, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(adapters, copy)
    shutil.rmtree(copy / "checkpoints")
    assert main(["train", "--resume", "--out", str(copy)]) == 0
    assert_same(open_run(adapters).load_trained(6)[0], open_run(copy).load_trained(6)[0])


# --- What is refused -------------------------------------------------------------------------------------------------

WRONG = {
    "makes another model of the folder's, got --depth, --mask": ["--depth", "2", "--mask", "causal()"],
    "to decide the model and its tokenizer, got --preset": ["--preset", "tiny"],
    "got --tokenizer, --vocab-size": ["--tokenizer", "subwords", "--vocab-size", "300"],
    "--length: expected at most the model's context of 64, got 65": ["--length", "65"],
    "--length: expected a whole number >= 1": ["--length", "0"],
    "--lora: expected a whole number >= 1": ["--lora", "0"],
    "--lora-alpha, --lora-targets: expected only with a rank": ["--lora-alpha", "2", "--lora-targets", "x"],
    "--lora-targets: expected a pattern that finds one of blocks.rest.0": ["--lora", "2", "--lora-targets", "banana"],
}


@pytest.mark.parametrize("message", WRONG)
def test_options_that_do_not_fit(message, text, base, tmp_path, capsys):
    out = tmp_path / "out"
    assert message in error_of(
        ["train", str(text), "--from", str(base), "--out", str(out), *FINE_TUNE, *WRONG[message]], capsys
    )
    assert not out.exists()


def test_adapters_of_a_new_model_are_refused(text, tmp_path, capsys):
    message = error_of(["train", str(text), "--out", str(tmp_path / "out"), "--lora", "2"], capsys)
    assert "--lora: expected --from FOLDER with it" in message


def without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def larger_tokenizer(folder):
    write_tokenizer(folder, [f"token {n}" for n in range(EXTRA_IDS + 1)])


def adapters_only(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder.parent / "base")}))
    (folder / "config.json").unlink()


def unknown_family(folder):
    (folder / "config.json").write_text('{"model_type": "rwkv"}')


BROKEN = {
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained": without_tokenizer,
    "--tokenizer: expected at most the 299 ids that the model embeds, got one of 300": larger_tokenizer,
    "from: expected a model, got adapters": adapters_only,
    "config.json: expected a model_type among": unknown_family,
}


@pytest.mark.parametrize("message", BROKEN)
def test_folders_that_cannot_be_trained_further(message, text, base, tmp_path, capsys):
    shutil.copytree(base, tmp_path / "base")
    shutil.copytree(base, tmp_path / "copy")
    BROKEN[message](tmp_path / "copy")
    out = tmp_path / "out"
    assert message in error_of(["train", str(text), "--from", str(tmp_path / "copy"), "--out", str(out)], capsys)
    assert not out.exists()


def test_a_folder_without_a_model_is_refused(text, tmp_path, capsys):
    message = error_of(["train", str(text), "--from", str(tmp_path), "--out", str(tmp_path / "out")], capsys)
    assert "expected the folder of a Hugging Face model or of a run" in message


def test_adapters_know_their_base(adapters, base, tmp_path, capsys):
    copy, moved = tmp_path / "copy", tmp_path / "moved"
    shutil.copytree(adapters, copy)
    shutil.copytree(base, moved)
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    config = json.loads((copy / "config.json").read_text())
    for folder, message in (
        (moved, "got another one: its config or weights changed"),
        (tmp_path / "x", "no such folder"),
    ):
        config["origin"]["folder"] = str(folder)
        (copy / "config.json").write_text(json.dumps(config))
        assert message in error_of(["generate", str(copy), "--prompt", "the"], capsys)


def test_the_base_is_only_read(adapters, whole, base):
    origins = [json.loads((run / "config.json").read_text())["origin"] for run in (adapters, whole)]
    assert origins[0] == origins[1]
    assert Path(origins[0]["folder"]) == base
    assert set(files_in(base)) == {
        Path(name)
        for name in (
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    }
