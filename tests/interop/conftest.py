"""Models of both sides, each made once; and one thread for PyTorch."""

from __future__ import annotations

import pytest
import torch

from jax_attention import interop
from tests.support import hf_models


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Many tiny products take several times as long when threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Makes a model of theirs, saved and loaded as ours; tests leave both as they are."""
    made = {}

    def make(name):
        if name not in made:
            theirs, folder = hf_models.build(name), tmp_path_factory.mktemp("theirs")
            theirs.save_pretrained(folder)
            made[name] = theirs, interop.load(folder)
        return made[name]

    return make
