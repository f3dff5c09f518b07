"""The command line on folders of unknown origin: ids, adapters of themselves, links, weights that are not finite."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jax_attention import data, interop, models
from jax_attention.cli import pretrained
from jax_attention.cli.evaluate import Evaluate
from jax_attention.interop.hf.token_ids import token_ids
from tests.models import small
from tests.robustness.hostile_folders import WEIGHTS, change_json, copied


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "gpt2"
    config = models.gpt2(vocab_size=300, context=8, width=8, depth=1, num_heads=2, scan=False)
    interop.save(small.filled(lambda: models.create(config)), folder)
    data.Subwords.train(["low lower lowest"] * 9, vocab_size=260).save(folder)
    (folder / "settings.json").unlink()
    return folder


@pytest.mark.parametrize("ids", ["2", [2, "3"], {"a": 1}, -1, 2.5, True])
def test_ids_of_other_types_are_refused(ids, gpt2, tmp_path):
    folder = copied(gpt2, tmp_path / "model")
    change_json(folder, eos_token_id=ids)
    with pytest.raises(ValueError, match=r"config\.json: expected eos_token_id to be an id or a list of ids"):
        interop.stop_tokens(folder)
    with pytest.raises(ValueError, match=r"config\.json: expected eos_token_id to be an id or a list of ids"):
        token_ids(folder)


def test_adapters_of_themselves_are_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(ValueError, match=r"base_model_name_or_path: expected a model with config\.json"):
        pretrained.open_pretrained(tmp_path)


@pytest.mark.parametrize("name", [3, ["a"], None, "a\0b", "a" * 10**6])
def test_a_base_that_is_no_folder_is_refused(name, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    with pytest.raises(FileNotFoundError, match="expected the folder of the base model") as caught:
        pretrained.open_pretrained(tmp_path)
    assert len(str(caught.value)) < 600


def test_links_to_the_outside_are_not_copied(gpt2, tmp_path):
    folder = copied(gpt2, tmp_path / "model")
    (tmp_path / "secret").write_text("secret")
    (folder / "vocab.json").symlink_to(tmp_path / "secret")
    for call in (lambda: pretrained.copy_files(folder, tmp_path / "copy"), lambda: pretrained.open_origin(folder)):
        with pytest.raises(ValueError, match=r"'vocab\.json', a link to .*secret' outside of it"):
            call()
    assert not (tmp_path / "copy").exists()


def test_weights_that_are_not_finite_are_not_evaluated(gpt2, tmp_path):
    folder = copied(gpt2, tmp_path / "model")
    arrays = load_file(folder / WEIGHTS)
    arrays["transformer.wte.weight"][3, 4] = np.nan
    save_file(arrays, folder / WEIGHTS)
    (tmp_path / "a.txt").write_text("low lower lowest " * 9)
    with pytest.raises(ValueError, match=r"folder: expected a model with finite weights.*infinity in embedding"):
        Evaluate(folder=folder, files=(str(tmp_path / "a.txt"),), length=8).run()
