"""Files that version 0.1 wrote are read: a run with its checkpoint, configs, Hugging Face folders, adapters.

`tests/fixtures/v0_1` was written by version 0.1 on jax 0.12, the figures in it too.
"""

from __future__ import annotations

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from jax_attention import interop, masks, models, mods, nn, normalizers
from jax_attention.cli.__main__ import main
from jax_attention.cli.run_folder import open_run
from jax_attention.training import make_evaluate
from tests.house.sources import ROOT
from tests.support.tolerances import FORWARD

FILES = ROOT / "tests" / "fixtures" / "v0_1"
LOGITS = json.loads((FILES / "logits.json").read_text(encoding="utf-8"))
CONFIGS = json.loads((FILES / "configs.json").read_text(encoding="utf-8"))
TOKENS = np.arange(8)


@pytest.fixture
def folder(tmp_path):
    """A copy of the run, which may be written to."""
    return shutil.copytree(FILES / "run", tmp_path / "run")


def test_run_is_read_with_the_loss_that_it_had(folder):
    run = open_run(folder)
    assert run.config.qk_norm == "all_heads"
    model, step = run.load()
    assert step == 2
    corpus = run.corpus()
    loss = make_evaluate(corpus.validation, 2)(model)["loss"]
    expected = json.loads((folder / "results.json").read_text(encoding="utf-8"))["this model"]["nats_per_token"]
    np.testing.assert_allclose(loss, expected, rtol=10 * FORWARD["float32"])


def test_run_that_was_interrupted_is_continued(folder):
    """The optimiser state is read too: the folder asks for one more step than the run has taken."""
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"steps": 2', '"steps": 3'), encoding="utf-8")
    assert main(["train", "--resume", "--out", str(folder)]) == 0
    assert open_run(folder).load_trained(3)[1] == 3


def test_hugging_face_folder_has_the_same_logits():
    model = interop.load(FILES / "exported")
    np.testing.assert_allclose(model(TOKENS).logits[-1], LOGITS["exported"], rtol=0, atol=1e-5)
    adapters = interop.load_adapters(model, FILES / "adapters")
    logits = nn.apply_adapters(model, adapters)(TOKENS).logits[-1]
    np.testing.assert_allclose(logits, LOGITS["adapters"], rtol=0, atol=1e-5)


def test_configs_are_read():
    configs = {name: models.config_from_json(x) for name, x in CONFIGS.items()}
    assert configs["joined"] == models.tiny(vocab_size=11, width=8).replace(qk_norm="all_heads")
    assert configs["gemma2"] == models.gemma2()
    assert type(configs["rnn"]) is models.RNNConfig
    assert configs["pair"].decoder.memory_size == 8
    rule = configs["rule"]
    assert rule.mods == (mods.alibi(jnp.array([0.5, 0.25])), mods.soft_cap(30.0))
    assert (rule.mask, rule.normalize) == (masks.causal() & masks.sliding_window(4), normalizers.softmax(plus_one=True))
