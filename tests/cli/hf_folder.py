"""A tiny random Hugging Face model with a tokenizer, and options to train it further in a moment."""

from __future__ import annotations

import numpy as np
import tokenizers
import torch
import transformers

from tests.cli.quick_run import TEXT
from tests.support import hf_models

EXTRA_IDS = 9
"""Ids that the model embeds beyond those of its tokenizer, as published models often do."""
FINE_TUNE = ["--length", "16", "--batch-size", "4", "--steps", "6", "--evaluate-every", "3", "--checkpoint-every", "3"]
FINE_TUNE += ["--schedule", "constant", "--warmup", "0", "--sample-tokens", "4", "--clip", "None"]


def write_tokenizer(folder, added_tokens=()):
    """Write a byte-level tokenizer that puts <s> in front of a text; return its size."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    engine.train_from_iterator([TEXT], trainer)
    engine.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    engine.add_tokens(list(added_tokens))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def write_base(folder, case="llama 3"):
    """Write a model of `hf_models` with the tokenizer, and return it; it prefers the ids that the tokenizer lacks."""
    kind, fields = hf_models.CASES[case]
    size = write_tokenizer(folder)
    layers = {"num_hidden_layers": 2} if kind == "Llama" else {}
    hf_model = hf_models.make_model(
        kind, fields | layers | {"vocab_size": size + EXTRA_IDS, "bos_token_id": 0, "eos_token_id": 1}
    )
    with torch.no_grad():
        hf_model.get_output_embeddings().weight[size:] *= 4
    hf_model.save_pretrained(folder)
    return hf_model


def logits(hf_model, ids):
    """Logits of a Hugging Face model as a NumPy array."""
    with torch.no_grad():
        return hf_model(torch.from_numpy(np.asarray(ids, np.int64))).logits.numpy()
