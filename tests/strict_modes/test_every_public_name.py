"""Every public name under JAX's strict modes, forward and backward: each is a case, or has a reason to be none.

Calls outside of `jit` are those of the examples: tests/house/test_examples_under_strict_modes.py.
"""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest

from tests.house.test_public_names import CACHE, PUBLIC
from tests.strict_modes import attention_cases, module_cases, training_cases
from tests.strict_modes.modes import MODES, Case, run
from tests.support.tiers import slow_except

CASES: dict[str, Case] = attention_cases.CASES | module_cases.CASES | training_cases.CASES
NO_CASES = {
    "data": "NumPy and text only",
    "viz": "NumPy and pictures only",
    "interop": "reads, writes and compares weights with NumPy; the models that it gives are cases here",
    "testing": "check_rule sets dtypes itself",
}
REASONS = {
    "cache masks mods normalizers parts positions scores": "packages, whose names are cases below",
    "AttentionOutput FeatureState Partial": "results of cases",
    "scores.Score scores.UserScore mods.Mod mods.UserMod masks.Mask masks.UserMask": "base classes, functions wrapped",
    "normalizers.Normalizer normalizers.UserNormalizer positions.Scaling": "base classes, functions wrapped",
    "masks.MaskAndMods": "result of masks.from_torch_mha and others",
    "parts.Score parts.Mod parts.Mask parts.Normalizer parts.BlockCoverage parts.TileRanges": "bases and records",
    "nn.Adapters": "result of nn.lora",
    "models.LMConfig models.EncoderDecoderConfig models.RNNConfig models.Capture": "configs, not arrays",
    "models.LMCache models.LMOutput models.Memory models.StackOutput models.CaptureResult": "results of cases",
    "models.RNNMemory models.RNNState": "results of cases",
    "training.FitResult training.Losses training.TrainState": "results of cases",
    "decoding.Beams decoding.GenerationResult decoding.StreamChunk": "results of cases",
    "decoding.History decoding.Prompts": "arguments of cases",
    "explain Explanation": "compute nothing",
    "Cudnn": "needs a GPU",
    "scores.CATALOGUE mods.CATALOGUE masks.CATALOGUE normalizers.CATALOGUE positions.CATALOGUE": "lists of functions",
    "parts.array_field parts.part_field parts.struct parts.check_array": "declare and check",
    "models.PRESETS models.config_from_json models.config_to_json": "configs, not arrays",
    "decoding.pad_prompts": "integers, in NumPy",
    "decoding.LogitTransform": "base class of the transforms",
    "nn.PartModule": "base class of nn.Additive and others",
    "training.Checkpoints training.MetricsFile training.TensorBoard training.read_metrics": "files",
    "training.Meter training.Progress training.progress training.train_flops training.matmul_peak": "figures of a run",
    "training.bleu training.rouge training.Rouge training.exact_match training.token_accuracy": "NumPy",
    "training.t_interval training.paired_difference training.ConfidenceInterval": "NumPy",
    "training.fit training.make_evaluate": "run the steps that are cases here; the command line below runs them",
    "training.check_divides training.data_mesh training.replicate training.split_rows": "place arrays",
    "training.keep_freed_memory training.TrainingDiverged": "compute nothing",
    "training.LoopConfig training.OptimizerConfig": "configs, not arrays",
}
QUICK = [name for name in CASES if not name.startswith(("models.TransformerLM, ", "masks.", "models."))]
QUICK += ["models.TransformerLM", "models.RNNSeq2Seq", "masks.from_torch_mha", "masks.fully_masked_rows", "masks.plain"]
BOTH = [(name, False) for name in CASES] + [(name, True) for name, case in CASES.items() if not case.no_gradient]
EVERY = [pytest.param(*call, id=f"{call[0]}-{'gradient' if call[1] else 'forward'}") for call in BOTH]
QUICK_CALLS = [x.id for x in EVERY if x.values[0] in QUICK and x.values[1] is not bool(CASES[x.values[0]].no_gradient)]
"""The gradient where there is one, as it contains the call itself."""


def allowed_modes(name: str, *modes: str) -> tuple[str, ...]:
    excepted = dict(CASES[name].excepted)
    return tuple(mode for mode in modes if mode not in excepted)


@pytest.mark.parametrize(
    "modes", [("strict promotion", "rank raise"), ("strict promotion", "rank raise", "x64")], ids=", ".join
)
@pytest.mark.parametrize(("name", "gradient"), slow_except(QUICK_CALLS, EVERY))
def test_dtypes_and_ranks(name, gradient, modes):
    """Refused while tracing, if at all; float32 and narrower stays so with x64."""
    found = run(CASES[name], allowed_modes(name, *modes), gradient)
    assert found
    assert not any(x.dtype == jnp.float64 for x in found)


RUN = ("attend_with_stats_heads-gradient", "Blockwise-gradient", "LinearAttention-gradient", "cache.append-gradient")
RUN += ("masks.from_torch_mha-gradient", "nn.MultiHeadAttention-gradient", "nn.LSTM-gradient")
RUN += ("models.TransformerLM-gradient", "training.make_optimizer-forward", "decoding.generate-forward")
RUN += ("decoding.beam_search-forward", "decoding.top_p-gradient", "normalizers.entmax15-gradient")


@pytest.mark.parametrize(("name", "gradient"), slow_except(RUN, EVERY))
def test_numbers_are_finite_inside(name, gradient):
    found = run(CASES[name], allowed_modes(name, "debug_nans", "debug_infs"), gradient)
    numbers = [x.astype(jnp.float32) for x in found if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(np.isfinite(x).all() for x in numbers) or "debug_infs" in dict(CASES[name].excepted)


def made_by(name: str) -> str:
    """The function that makes a part of this class: `scores.scaled_dot` makes `scores.ScaledDot`."""
    package, _, short = name.rpartition(".")
    return f"{package}.{re.sub('(?<!^)(?=[A-Z])', '_', short).lower()}"


def test_every_name_is_a_case_or_has_a_reason():
    known = {name.split(",")[0] for name in CASES} | {name for names in REASONS for name in names.split()}
    missing = []
    for package, names in [*PUBLIC.items(), ("jax_attention.cache", CACHE)]:
        short = package.removeprefix("jax_attention").lstrip(".")
        full = [f"{short}.{name}".lstrip(".") for name in names.split() if short not in NO_CASES]
        missing += [name for name in full if name not in known and made_by(name) not in known]
    assert missing == []
    excepted = [name for name, case in CASES.items() if {mode for mode, _ in case.excepted} - {*MODES}]
    assert excepted == []
