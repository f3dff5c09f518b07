"""Tokens that end a text: those of a folder, and a generation that ends where that of transformers ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from jax_attention import decoding, interop
from tests.support import hf_models

COUNT = 12
ROWS = [[5, 6, 7], [20, 3, 21]]
CONFIG, GENERATION = "config.json", "generation_config.json"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A folder of a model, and the tokens that it writes without an end."""
    folder = tmp_path_factory.mktemp("stop_tokens") / "gpt2"
    hf_models.make_model("GPT2", hf_models.GPT2 | {"eos_token_id": None, "bos_token_id": None}).save_pretrained(folder)
    model = interop.load(folder)
    return folder, model, np.asarray(decoding.generate(model, ROWS, max_new_tokens=COUNT).tokens)


def change(folder, **ids):
    """Set `eos_token_id` in the files of the folder; "absent" removes the file."""
    for name, x in {CONFIG: ids.get("config"), GENERATION: ids.get("generation")}.items():
        fields = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(fields | {"eos_token_id": x}))
        if x == "absent":
            (folder / name).unlink()


PLACES = {
    "an id": lambda a, b: ({"config": a, "generation": a}, (a,)),
    "a list": lambda a, b: ({"config": None, "generation": [a, b]}, (a, b)),
    "only the config": lambda a, b: ({"config": [a, b], "generation": "absent"}, (a, b)),
    "the generation config goes first": lambda a, b: ({"config": a, "generation": b}, (b,)),
    "none": lambda a, b: ({}, ()),
}


@pytest.mark.parametrize("name", PLACES)
def test_generation_ends_where_transformers_ends(name, gpt2):
    folder, model, free = gpt2
    ids, expected = PLACES[name](int(free[0, 3]), int(free[1, 5]))
    change(folder, **ids)
    assert interop.stop_tokens(folder) == expected
    found = decoding.generate(model, ROWS, max_new_tokens=COUNT, stop_tokens=interop.stop_tokens(folder))
    hf_model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    options = {"max_new_tokens": COUNT, "do_sample": False, "pad_token_id": 0}
    for row, tokens, length in zip(ROWS, np.asarray(found.tokens), found.lengths, strict=True):
        prompt = torch.tensor([row])
        new = hf_model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)[0, len(row) :]
        np.testing.assert_array_equal(tokens[: int(length)], new)
    assert (int(found.lengths.min()) < COUNT) == bool(expected)


def test_the_config_is_read_where_the_generation_config_names_none(gpt2):
    folder, _, _ = gpt2
    change(folder, config=[4, 2])
    assert interop.stop_tokens(str(folder)) == (4, 2)


@pytest.mark.parametrize("file", [CONFIG, GENERATION])
@pytest.mark.parametrize("ids", ["2", [2, None], -1, True, [[2]], 2**31])
def test_what_is_no_id_is_refused(file, ids, gpt2):
    folder, _, _ = gpt2
    change(folder, **{"config" if file == CONFIG else "generation": ids})
    with pytest.raises(ValueError, match=rf"{file}: expected eos_token_id to be an id or a list of ids, got"):
        interop.stop_tokens(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: expected a model folder with config\.json"):
        interop.stop_tokens(tmp_path)
    with pytest.raises(TypeError, match=r"path: expected the name of a folder"):
        interop.stop_tokens(3)
