"""Pairs of a model of transformers and its JAX model, each made once; and one thread for PyTorch."""

from __future__ import annotations

import pytest
import torch

from jax_attention import interop
from tests.support import hf_models


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one PyTorch thread: tiny products take several times as long when threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A function that makes the two models of a case by way of a folder. Tests share them and do not change them."""
    pairs = {}

    def make(name):
        if name not in pairs:
            hf_model, folder = hf_models.build(name), tmp_path_factory.mktemp("hf_model")
            hf_model.save_pretrained(folder)
            pairs[name] = hf_model, interop.load(folder)
        return pairs[name]

    return make
