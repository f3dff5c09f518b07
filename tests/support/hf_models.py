"""Models of every Hugging Face family: tiny, random, of odd sizes, made from configs without downloads."""

from __future__ import annotations

import numpy as np
import torch
import transformers

V, D, F, LAYERS = 37, 28, 22, 3
"""Vocabulary, width, feed-forward size and depth: numbers with few divisors, so that swapped axes do not fit."""
SHARED = {"vocab_size": V, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
GROUPED = SHARED | {
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
}
WHOLE = GROUPED | {"num_attention_heads": 2, "num_key_value_heads": 1}
"""For families without a field for the head size: two heads of 14, one for keys and values."""
PLAIN = {name: x for name, x in WHOLE.items() if name != "head_dim"}
NEOX = {name: x for name, x in PLAIN.items() if name != "num_key_value_heads"}


def rope(base=10000.0, **other):
    return {"rope_parameters": {"rope_theta": base, "rope_type": "default"} | other}


LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
YARN = {"factor": 2.0, "original_max_position_embeddings": 32, "beta_fast": 16.0}
GEMMA3_ROPE = {
    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 2.0},
    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"},
}
LOCAL = ["sliding_attention", "full_attention", "full_attention"]
CASES = {
    "gpt2": ("GPT2", SHARED | {"n_embd": D, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "n_inner": 26}),
    "gpt2, untied, exact GELU": (
        "GPT2",
        SHARED
        | {"n_embd": D, "n_layer": 1, "n_head": 7, "n_positions": 64}
        | {"tie_word_embeddings": False, "activation_function": "gelu"},
    ),
    "pythia": ("GPTNeoX", NEOX | rope(partial_rotary_factor=0.45)),
    "neox, sequential residual, no biases": (
        "GPTNeoX",
        NEOX | rope(500.0, partial_rotary_factor=1.0) | {"use_parallel_residual": False, "attention_bias": False},
    ),
    "llama 2": ("Llama", PLAIN | rope()),
    "llama 3": (
        "Llama",
        GROUPED | rope(500000.0, **LLAMA3, **{"rope_type": "llama3"}) | {"tie_word_embeddings": True},
    ),
    "llama, biases, YaRN": (
        "Llama",
        GROUPED | rope(**YARN, **{"rope_type": "yarn"}) | {"attention_bias": True, "mlp_bias": True},
    ),
    "llama, linear": ("Llama", GROUPED | rope(factor=2.0, **{"rope_type": "linear"})),
    "mistral": ("Mistral", GROUPED | rope() | {"sliding_window": 5}),
    "mistral, no window": ("Mistral", GROUPED | rope() | {"sliding_window": None}),
    "qwen2": ("Qwen2", PLAIN | rope()),
    "qwen2, windows above": (
        "Qwen2",
        PLAIN | rope() | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", GROUPED | rope(1e6) | {"tie_word_embeddings": True}),
    "qwen3, biases": ("Qwen3", GROUPED | rope() | {"attention_bias": True}),
    "gemma": ("Gemma", WHOLE | rope()),
    "gemma2": (
        "Gemma2",
        GROUPED
        | rope()
        | {"sliding_window": 5, "query_pre_attn_scalar": 9, "attn_logit_softcapping": 1.5}
        | {"final_logit_softcapping": 3.0},
    ),
    "gemma3": (
        "Gemma3",
        GROUPED
        | {"rope_parameters": GEMMA3_ROPE, "layer_types": LOCAL, "sliding_window": 5, "query_pre_attn_scalar": 7},
    ),
    "phi3": ("Phi3", PLAIN | rope(partial_rotary_factor=0.6) | {"sliding_window": 7, "pad_token_id": 0}),
    "olmo2": ("Olmo2", PLAIN | rope()),
}
BERT = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": F,
    "max_position_embeddings": 21,
}
ENCODERS = {
    "bert": ("Bert", BERT),
    "bert, untied, ReLU, three types": (
        "Bert",
        BERT | {"tie_word_embeddings": False, "hidden_act": "relu", "type_vocab_size": 3, "layer_norm_eps": 1e-5},
    ),
    "roberta": ("Roberta", BERT | {"type_vocab_size": 1}),
    "roberta, untied": ("Roberta", BERT | {"type_vocab_size": 2, "tie_word_embeddings": False}),
    "distilbert": (
        "DistilBert",
        {"vocab_size": V, "dim": D, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": F, "max_position_embeddings": 21},
    ),
}
ENCODER_DECODER = {"vocab_size": V, "d_model": D, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1}
T5 = ENCODER_DECODER | {"d_kv": 6, "d_ff": F, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
BART = ENCODER_DECODER | {
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": F,
    "decoder_ffn_dim": 18,
    "max_position_embeddings": 40,
    "bos_token_id": 1,
    "forced_eos_token_id": None,
}
ENCODER_DECODERS = {
    "t5": ("T5", T5),
    "t5 1.1": ("T5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("Bart", BART),
    "bart, scaled embeddings": ("Bart", BART | {"scale_embedding": True, "activation_function": "relu"}),
    "marian": ("Marian", BART | {"activation_function": "swish", "scale_embedding": True}),
    "marian, two vocabularies": (
        "Marian",
        BART | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 31},
    ),
    "marian, two vocabularies, untied": (
        "Marian",
        BART | {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 31, "tie_word_embeddings": False},
    ),
}
GPT2 = CASES["gpt2"][1] | {"n_layer": 2}
VARIANTS = {
    "gpt2, scores by layer": (
        "GPT2",
        GPT2 | {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "gpt2, scores without a scale": ("GPT2", GPT2 | {"scale_attn_weights": False}),
    "t5, 8 buckets": (
        "T5",
        T5
        | {"num_layers": 1, "num_decoder_layers": 2}
        | {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 10},
    ),
}
"""Options that few published models use. Tokens of a row are farther apart than the largest distance."""
SHALLOW = {
    "gemma2, one layer": ("Gemma2", CASES["gemma2"][1] | {"num_hidden_layers": 1}),
    "pythia, two layers": ("GPTNeoX", CASES["pythia"][1] | {"num_hidden_layers": 2}),
    "t5, three layers": ("T5", T5 | {"num_layers": 1, "num_decoder_layers": 2}),
    "t5 1.1, three layers": ("T5", ENCODER_DECODERS["t5 1.1"][1] | {"num_layers": 1, "num_decoder_layers": 2}),
    "bert, one layer": ("Bert", BERT | {"num_hidden_layers": 1}),
    "bert, two layers": ("Bert", BERT | {"num_hidden_layers": 2}),
    "marian, three layers": ("Marian", ENCODER_DECODERS["marian"][1] | {"encoder_layers": 1, "decoder_layers": 2}),
}
"""Shallow versions, for tests that do not depend on depth: compile time grows with every layer."""
HEADS = {"GPT2": "LMHeadModel", "T5": "ForConditionalGeneration", "Bart": "ForConditionalGeneration"}
HEADS |= {"Marian": "MTModel"} | dict.fromkeys(("Bert", "Roberta", "DistilBert"), "ForMaskedLM")


def build(name, dtype=torch.float32):
    """Make the model of a case."""
    return make_model(*(CASES | ENCODERS | ENCODER_DECODERS | VARIANTS | SHALLOW)[name]).to(dtype)


def make_model(kind, fields):
    """Make a model of transformers whose weights all matter for the output, norm scales and biases too."""
    family = "Gemma3Text" if kind == "Gemma3" else kind
    config = getattr(transformers, f"{family}Config")(**fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}{HEADS.get(kind, 'ForCausalLM')}")(config)
    rng = np.random.default_rng(len(fields))
    with torch.no_grad():
        for key, weight in parameters(model).items():
            is_table = any(part in key for part in ("emb", "wte", "shared"))
            scale = 0.3 if weight.ndim == 1 else 0.7 if is_table else weight.shape[-1] ** -0.5
            # T5 does not scale its scores; its queries are smaller instead.
            scale *= config.d_kv**-0.5 if kind == "T5" and key.endswith("Attention.q.weight") else 1.0
            offset = 1.0 if weight.ndim == 1 and weight.detach().abs().min() > 0.5 else 0.0
            weight.copy_(torch.from_numpy(offset + scale * rng.standard_normal(weight.shape)))
    return model.eval()


def parameters(model):
    """What this library has as parameters, by name: the trained ones, without Marian's sinusoids, and one buffer."""
    buffers = {name: x for name, x in model.named_buffers() if name == "final_logits_bias"}
    return {name: x for name, x in model.named_parameters() if x.requires_grad} | buffers


def tokens(rows=2, length=13, seed=0):
    return np.random.default_rng(seed).integers(3, V, (rows, length))
