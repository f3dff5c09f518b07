"""Every public name is pinned and documented, and every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re

import pytest

import jax_attention
from jax_attention import (
    cache,
    data,
    decoding,
    interop,
    masks,
    models,
    mods,
    nn,
    normalizers,
    positions,
    scores,
    training,
    viz,
)
from tests.house.sources import LIBRARY, module_name
from tests.support.tiers import slow_except

PUBLIC = {
    "jax_attention": """
        AttentionOutput Blockwise Cudnn Dense Dropout Explanation FeatureState LinearAttention Partial attend
        attend_heads attend_step attend_with_stats attend_with_stats_heads attention_weights
        attention_weights_heads cache dot_product_attention explain flax_attention_fn masks merge_partials mods
        normalizers parts positions scores""",
    "jax_attention.parts": """
        BlockCoverage Mask Mod Normalizer Score TileRanges array_field check_array finite_or_zero forbid part_field
        per_tile row_max safe_norm struct take_last""",
    "jax_attention.testing": """
        CheckResult RuleReport check_rule""",
    "jax_attention.scores": """
        Additive CATALOGUE Concat Cosine Dot Features General L2 Location RandomFeatures ScaledDot Score UserScore
        additive as_score concat cosine dot features general l2 location random_features scaled_dot""",
    "jax_attention.mods": """
        Alibi Bias CATALOGUE Mod Relative SoftCap Temperature UserMod alibi as_mod bias relative soft_cap
        temperature""",
    "jax_attention.masks": """
        And BlockSparse CATALOGUE Causal Chunked Dense Dilated Lengths Mask MaskAndMods Not Or Prefix Segments
        SlidingWindow UserMask as_mask block_sparse causal chunked dense dilated from_flash_window
        from_huggingface from_huggingface_window from_jax_nn_window from_torch_mha from_torch_sdpa
        fully_masked_rows lengths prefix segments sliding_window""",
    "jax_attention.normalizers": """
        CATALOGUE Entmax15 Hard Linear Normalizer Proportional Relu Sigmoid Softmax Sparsemax Uniform
        UserNormalizer as_normalizer entmax15 hard linear proportional relu sigmoid softmax sparsemax uniform""",
    "jax_attention.positions": """
        CATALOGUE Rotary Scaling alibi_slopes dynamic_scaling learned linear_scaling llama3_scaling rotary
        sinusoidal t5_buckets yarn_scaling""",
    "jax_attention.nn": """
        Adapters Additive Attn Concat FeedForward GRU General LSTM LearnedPart Linear Location MultiHeadAttention
        PartModule SelfAttention apply_adapters lora""",
    "jax_attention.models": """
        Capture CaptureResult Classifier ConditionedDecoder EncoderDecoder EncoderDecoderConfig
        EncoderDecoderStack LMCache LMConfig LMOutput Memory PRESETS PatchEncoder PureModel RNNConfig RNNMemory
        RNNSeq2Seq RNNState StackOutput TransformerLM TransformerLayer TransformerStack config_from_json
        config_to_json create from_dict gemma2 gpt2 llama pure_model scan_layers tiny to_dict unroll_layers""",
    "jax_attention.data": """
        Baselines Batch Batches Bytes Characters Corpus Document HeldOut Ngram PackedDocuments Pair Seq2SeqBatch
        Seq2SeqBatches Source StreamDecoder Subwords Tokenizer Tokens Windows Words held_out load_tokenizer
        ngram_baselines open_corpus open_tokens pad_rows prepare read_documents read_pairs split_documents
        split_pairs standard_library_corpus tasks tokenize write_tokens""",
    "jax_attention.training": """
        Checkpoints ConfidenceInterval FitResult LoopConfig Losses Meter MetricsFile OptimizerConfig Progress
        Rouge TensorBoard TrainState TrainingDiverged bleu check_divides cross_entropy data_mesh
        evaluate_step exact_match fit init_state keep_freed_memory language_model_loss make_evaluate
        make_optimizer make_schedule make_train_step matmul_peak paired_difference progress read_metrics
        refuse_nonfinite replicate rouge seq2seq_loss split_rows t_interval token_accuracy train_flops""",
    "jax_attention.decoding": """
        Beams GenerationResult History LogitTransform Prompts Sampler StreamChunk beam_search generate greedy
        min_new_tokens min_p no_repeat_ngram_size pad_prompts repetition_penalty sampler temperature top_k top_p""",
    "jax_attention.interop": """
        Comparison Diagnosis Difference ParityReport ParityRow compare compare_rule difference from_state_dict
        from_torch load load_adapters save save_adapters to_state_dict to_torch""",
    "jax_attention.viz": """
        alignment_map entropy_map head_entropy head_grid heat_map html_page rollout save text_heatmap""",
}
CACHE = "append create filled next_positions"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_pinned(name):
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name].split())
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


def own_functions(module):
    inside = inspect.getmembers(module, inspect.isfunction)
    return {name: f for name, f in inside if not name.startswith("_") and f.__module__ == module.__name__}


def test_public_functions_of_the_cache_are_pinned():
    assert sorted(own_functions(cache)) == CACHE.split()


def test_catalogues_hold_every_factory_of_their_folder():
    for package in (scores, mods, masks, normalizers):
        made = {f for name, f in vars(package).items() if name in package.__all__ and inspect.isfunction(f)}
        others = {f for f in made if f.__name__.startswith(("as_", "from_"))} | {masks.fully_masked_rows}
        assert set(package.CATALOGUE) == made - others, package.__name__


# --- Docstrings ------------------------------------------------------------------------------------------------------


DOCUMENTED_CLASSES = {
    *(set(nn.__all__) - {"Adapters", "PartModule"}),
    "Capture",
    "LMConfig",
    "TransformerLM",
    "Baselines",
    "Batch",
    "Bytes",
    "Characters",
    "Corpus",
    "Document",
    "HeldOut",
    "Ngram",
    "PackedDocuments",
    "Pair",
    "Seq2SeqBatch",
    "Seq2SeqBatches",
    "StreamDecoder",
    "Subwords",
    "Tokenizer",
    "Tokens",
    "Windows",
    "Words",
    "Checkpoints",
    "LoopConfig",
    "Meter",
    "MetricsFile",
    "OptimizerConfig",
    "TensorBoard",
    "TrainState",
}
"""Classes that users make; those that calls only return say in one line what they hold."""


def documented() -> dict[str, object]:
    found = {f"cache.{name}": f for name, f in own_functions(cache).items()} | {"Dropout": jax_attention.Dropout}
    for package in (jax_attention, scores, mods, masks, normalizers, positions):
        short = package.__name__.removeprefix("jax_attention").lstrip(".") or "jax_attention"
        functions = {name: getattr(package, name) for name in package.__all__}
        functions |= {f.__name__: f for f in getattr(package, "CATALOGUE", ())}
        found |= {f"{short}.{name}": f for name, f in functions.items() if inspect.isfunction(f)}
    for package in (nn, models, data, data.tasks, training, decoding, interop, viz):
        short = package.__name__.removeprefix("jax_attention.")
        public = {name: getattr(package, name) for name in package.__all__}
        documented_here = {name: x for name, x in public.items() if inspect.isfunction(x) or name in DOCUMENTED_CLASSES}
        found |= {f"{short}.{name}": x for name, x in documented_here.items()}
    return found


DOCUMENTED = documented()


def section(doc: str, title: str) -> str | None:
    """The lines below `title:`, or what stands on the same line (`Args: none.`)."""
    found = re.search(rf"^{title}:(.*(?:\n(?:[ ]{{4}}.*)?)*)", doc, re.M)
    return found and found[1].strip("\n")


def parameters(x: object) -> list[str]:
    if hasattr(x, "_fields"):
        return list(x._fields)
    return [name for name in inspect.signature(x.__init__ if isinstance(x, type) else x).parameters if name != "self"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_has_what_a_caller_needs(name):
    """A summary, every parameter, an example; errors, units and references are there where there are any."""
    subject = DOCUMENTED[name]
    doc = inspect.cleandoc(subject.__doc__ or "")
    summary = doc.split("\n\n")[0].replace("\n", " ")
    assert re.match(r"\S.*[.:]$", summary), "a summary that is a sentence"
    assert len(summary.split()) >= 3
    assert ">>> " in (section(doc, "Example") or ""), "an example"
    names = parameters(subject)
    args = section(doc, "Args") or ""
    unnamed = [p for p in names if not re.search(rf"^    (?:\w+, )*\*{{0,2}}{p}(?:, \w+)*:", args, re.M)]
    assert unnamed == [], "parameters without a line in Args"
    listed = re.findall(r"^    (\w+):", args, re.M)
    assert [entry for entry in listed if entry not in names] == [], "Args names what is not a parameter"


DOCTESTED = [module_name(path) for path in LIBRARY if ">>> " in path.read_text(encoding="utf-8")]
EXPENSIVE = """
    decoding.beams decoding.generate decoding.logit_transforms attention.attend attention.flax_adapter
    attention.jax_nn attention.merge attention.recurrent dropout interop.parity.compare_rule interop.hf.load_save
    interop.hf.peft interop.parity.compare interop.torch.convert masks.data models.transformer_stack
    models.encoder_decoder_stack models.classifier models.create models.encoder_decoder models.patch_encoder
    models.pure models.rnn_seq2seq models.transformer mods.bias mods.relative nn.attn nn.feed_forward nn.linear
    nn.lora nn.multi_head nn.recurrent nn.scores nn.self_attention normalizers.hard normalizers.pointwise
    normalizers.sparse positions.tables scores.additive scores.distance scores.features training.losses
    training.optimizers training.seq2seq_loss training.step viz.web_page"""
"""Modules whose examples compile for more than 0.3 seconds; of every part of a rule one module remains."""


@pytest.mark.parametrize(
    "name", slow_except([x for x in DOCTESTED if x.partition(".")[2] not in EXPENSIVE.split()], DOCTESTED)
)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
