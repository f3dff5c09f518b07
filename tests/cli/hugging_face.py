"""A tiny random model of Hugging Face with a tokenizer of its own, and options to train it further in a moment."""

from __future__ import annotations

import numpy as np
import tokenizers
import torch
import transformers

from tests.cli.fox import TEXT
from tests.support import hf_models

IDS = 9
"""More than the tokenizer has: models often embed more."""
FURTHER = ["--length", "16", "--batch-size", "4", "--steps", "6", "--evaluate-every", "3", "--checkpoint-every", "3"]
FURTHER += ["--schedule", "constant", "--warmup", "0", "--sample-tokens", "4", "--clip", "None"]


def write_tokenizer(folder, more=()):
    """A byte-level one that puts <s> in front of a text; returns its size."""
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    engine.train_from_iterator([TEXT], trainer)
    engine.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    engine.add_tokens(list(more))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=engine, bos_token="<s>", eos_token="</s>")
    made.save_pretrained(folder)
    return len(made)


def write_base(folder, case="llama 3"):
    """A model of `hf_models` with the tokenizer, and fond of the ids that it does not have; returns theirs."""
    kind, fields = hf_models.CASES[case]
    size = write_tokenizer(folder)
    layers = {"num_hidden_layers": 2} if kind == "Llama" else {}
    theirs = hf_models.make_model(
        kind, fields | layers | {"vocab_size": size + IDS, "bos_token_id": 0, "eos_token_id": 1}
    )
    with torch.no_grad():
        theirs.get_output_embeddings().weight[size:] *= 4
    theirs.save_pretrained(folder)
    return theirs


def logits(theirs, ids):
    with torch.no_grad():
        return theirs(torch.from_numpy(np.asarray(ids, np.int64))).logits.numpy()
