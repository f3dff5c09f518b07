"""What files of PEFT hold besides factors of linear layers: DoRA, embeddings, biases and whole modules.

vllm#9280: DoRA, adapted embeddings and `modules_to_save` are what others refuse or read wrongly.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file

from jax_attention import interop, models, nn
from jax_attention.core.tree_paths import arrays_by_path
from tests.models import small
from tests.support import hf_models, hf_parity
from tests.support.tiers import slow_except
from tests.support.tolerances import FORWARD, GRADIENT

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`:UserWarning"),
]
"""PEFT reads the first from transformers; the others say that adapted embeddings are saved, and not tied any more."""

QUERY_VALUE = ["q_proj", "v_proj", "down_proj"]
BIASES = {"attention_bias": True, "mlp_bias": True}
CASES = {
    "DoRA, packed partly": ("llama 2", {}, {"target_modules": QUERY_VALUE, "use_dora": True}),
    "DoRA, Conv1D": ("gpt2", {}, {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "DoRA, head by head": ("pythia, two layers", {}, {"target_modules": ["query_key_value"], "use_dora": True}),
    "DoRA, two kernels in one layer": ("phi3", {}, {"target_modules": ["gate_up_proj", "qkv_proj"], "use_dora": True}),
    "embedding": ("llama 2", {}, {"target_modules": ["embed_tokens", "q_proj"]}),
    "embedding, DoRA": ("llama 2", {}, {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "embedding, tied alike": (
        "llama 2",
        {"tie_word_embeddings": True},
        {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    ),
    "positions": ("gpt2", {}, {"target_modules": ["wpe", "c_fc"], "fan_in_fan_out": True}),
    "biases of adapted layers": ("llama 2", BIASES, {"target_modules": QUERY_VALUE, "bias": "lora_only"}),
    "all biases": ("gpt2", {}, {"target_modules": ["c_attn"], "bias": "all", "fan_in_fan_out": True}),
    "whole modules": (
        "llama 2",
        {},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "norm", "o_proj"]},
    ),
    "whole modules, tied alike": (
        "llama 2",
        {"tie_word_embeddings": True},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "everything": (
        "llama 2",
        BIASES,
        {"target_modules": ["k_proj", "up_proj"], "modules_to_save": ["lm_head", "v_proj", "input_layernorm"]}
        | {"bias": "lora_only", "use_dora": True, "rank_pattern": {"up_proj": 5}, "alpha_pattern": {"k_proj": 2}},
    ),
}
QUICK = ("DoRA, packed partly", "embedding, tied alike", "everything")


def make(name, tmp_path):
    """A model of transformers of two layers, the model that PEFT has made of it, and the folder of its base."""
    case, changes, options = CASES[name]
    kind, fields = (hf_models.CASES | hf_models.SHALLOW)[case]
    depth = "n_layer" if kind == "GPT2" else "num_hidden_layers"
    hf_model = hf_models.make_model(kind, fields | {depth: 2} | changes)
    hf_model.save_pretrained(tmp_path / "base")
    return hf_model, adapted(hf_model, options)


def adapted(hf_model, options):
    """The model with adapters whose numbers all matter."""
    config = peft.LoraConfig(**{"r": 3, "lora_alpha": 5, "task_type": "CAUSAL_LM"} | options)
    tuned, rng = peft.get_peft_model(hf_model, config).eval(), np.random.default_rng(1)
    with torch.no_grad():
        for x in dict.fromkeys(x for x in tuned.parameters() if x.requires_grad):
            x.add_(torch.from_numpy(0.3 * rng.standard_normal(x.shape)))
    return tuned


@pytest.mark.parametrize("name", slow_except(QUICK, CASES))
def test_adapters_of_peft_and_back(name, tmp_path):
    """Loaded, they give the logits of PEFT; saved again, PEFT loads them and gives the same once more."""
    _, tuned = make(name, tmp_path)
    tuned.save_pretrained(tmp_path / "adapter")
    base = interop.load(tmp_path / "base")
    assert hf_parity.forward(tuned, base) > 1e-2, "the adapters change the logits"
    adapters = interop.load_adapters(base, tmp_path / "adapter")
    jax_model = nn.apply_adapters(base, adapters)
    assert hf_parity.forward(tuned, jax_model) <= FORWARD["float32"]

    family = tuned.config.model_type
    interop.save_adapters(base, adapters, tmp_path / "saved", family=family)
    hf_base = type(tuned.get_base_model()).from_pretrained(tmp_path / "base", attn_implementation="eager")
    again = peft.PeftModel.from_pretrained(hf_base, tmp_path / "saved").eval()
    assert hf_parity.forward(again, jax_model) <= FORWARD["float32"]
    reloaded = nn.apply_adapters(base, interop.load_adapters(base, tmp_path / "saved", family=family))
    assert hf_parity.forward(again, reloaded) <= FORWARD["float32"]


SCANNED = slow_except(("everything",), [name for name in CASES if name != "DoRA, head by head"])


@pytest.mark.parametrize("name", SCANNED)
def test_the_same_in_a_scanned_model(name, tmp_path):
    """Every second layer has adapters: the others keep the lengths of their columns, and their arrays."""
    case, changes, options = CASES[name]
    kind, fields = (hf_models.CASES | hf_models.SHALLOW)[case]
    hf_model = hf_models.make_model(kind, fields | changes)
    hf_model.save_pretrained(tmp_path / "base")
    pattern = "h" if kind == "GPT2" else "layers"
    tuned = adapted(hf_model, options | {"layers_to_transform": [0, 2], "layers_pattern": pattern})
    tuned.save_pretrained(tmp_path / "adapter")
    scanned = interop.load(tmp_path / "base", scan=True)
    adapters = interop.load_adapters(scanned, tmp_path / "adapter")
    jax_model = nn.apply_adapters(scanned, adapters)
    assert hf_parity.forward(tuned, jax_model) <= FORWARD["float32"]
    interop.save_adapters(scanned, adapters, tmp_path / "saved", family=tuned.config.model_type)
    base = interop.load(tmp_path / "base")
    again = nn.apply_adapters(base, interop.load_adapters(base, tmp_path / "saved", family=tuned.config.model_type))
    assert hf_parity.forward(tuned, again) <= FORWARD["float32"]


ENCODERS = {
    "bert, two layers": {"target_modules": ["query"], "bias": "all"},
    "bert, untied, ReLU, three types": {"target_modules": ["query"], "bias": "all", "use_dora": True},
    "roberta": {"target_modules": ["position_embeddings", "query"], "bias": "all"},
    "distilbert": {"target_modules": ["q_lin"], "bias": "all", "modules_to_save": ["vocab_transform"]},
    "t5, three layers": {"target_modules": ["q"], "modules_to_save": ["final_layer_norm", "wo"], "use_rslora": True},
    "marian": {"target_modules": ["q_proj", "fc1"], "bias": "lora_only", "use_dora": True},
}


@pytest.mark.parametrize("name", slow_except(("bert, two layers",), ENCODERS))
def test_encoders_and_encoder_decoders_too(name, tmp_path):
    """Their heads have biases, which stay apart where the head is tied, and BERT has its bias under two names."""
    kind, fields = (hf_models.SHALLOW | hf_models.ENCODERS | hf_models.ENCODER_DECODERS)[name]
    hf_model = hf_models.make_model(kind, fields)
    hf_model.save_pretrained(tmp_path / "base")
    tuned = adapted(hf_model, ENCODERS[name] | {"task_type": None})
    tuned.save_pretrained(tmp_path / "adapter")
    base, family = interop.load(tmp_path / "base"), tuned.config.model_type
    assert hf_parity.forward(tuned, base) > 1e-2, "the adapters change the logits"
    adapters = interop.load_adapters(base, tmp_path / "adapter")
    jax_model = nn.apply_adapters(base, adapters)
    assert hf_parity.forward(tuned, jax_model) <= FORWARD["float32"]
    interop.save_adapters(base, adapters, tmp_path / "saved", family=family)
    assert json.loads((tmp_path / "saved/adapter_config.json").read_text())["bias"] == ENCODERS[name].get(
        "bias", "none"
    )
    hf_base = type(tuned.get_base_model()).from_pretrained(tmp_path / "base", attn_implementation="eager")
    again = peft.PeftModel.from_pretrained(hf_base, tmp_path / "saved").eval()
    assert hf_parity.forward(again, jax_model) <= FORWARD["float32"]


def test_a_bias_that_is_twice_in_a_file_is_the_same(tmp_path):
    hf_model = hf_models.make_model(*hf_models.SHALLOW["bert, one layer"])
    hf_model.save_pretrained(tmp_path / "base")
    adapted(hf_model, {"target_modules": ["query"], "bias": "all", "task_type": None}).save_pretrained(tmp_path / "new")
    arrays, path = load_file(tmp_path / "new/adapter_model.safetensors"), tmp_path / "new/adapter_model.safetensors"
    arrays["base_model.model.cls.predictions.decoder.bias"] += 1
    save_file(arrays, path)
    with pytest.raises(ValueError, match=r"got unused: base_model.model.cls.predictions.decoder.bias"):
        interop.load_adapters(interop.load(tmp_path / "base"), tmp_path / "new")


# --- Derivatives -----------------------------------------------------------------------------------------------------


def test_gradients_of_dora_are_those_of_peft(tmp_path):
    """The length of a column is a constant in the backward pass (section 4.3 of the paper), as in PEFT."""
    hf_model = hf_models.make_model("GPT2", hf_models.GPT2 | {"n_layer": 1})
    hf_model.save_pretrained(tmp_path / "base")
    tuned = adapted(hf_model, {"target_modules": ["c_attn", "c_fc"], "use_dora": True, "fan_in_fan_out": True})
    tuned.save_pretrained(tmp_path / "adapter")
    tokens = hf_models.tokens(length=5)
    torch.sin(tuned(torch.from_numpy(tokens)).logits).sum().backward()
    gradients = {
        name.replace(".default", "").removeprefix("base_model.model.transformer."): x.grad.numpy()
        for name, x in tuned.named_parameters()
        if x.requires_grad
    }
    base = interop.load(tmp_path / "base")
    adapters = interop.load_adapters(base, tmp_path / "adapter")

    @jax.jit
    def gradient_of(adapters):
        return jax.grad(lambda a: jnp.sum(jnp.sin(nn.apply_adapters(base, a)(tokens).logits)))(adapters)

    found, scale = gradient_of(adapters), 5 / 3
    for jax_layer, hf_layer in {
        "blocks.rest.0.attention.projections.joined": "h.0.attn.c_attn",
        "blocks.rest.0.feed_forward.up": "h.0.mlp.c_fc",
    }.items():
        for actual, name in (
            (found.down[jax_layer].T, "lora_A.weight"),
            (scale * found.up[jax_layer].T, "lora_B.weight"),  # the scale is in the second factor here
            (found.magnitude[jax_layer], "lora_magnitude_vector.weight"),
        ):
            assert hf_parity.relative(actual, gradients[f"{hf_layer}.{name}"]) <= GRADIENT["float32"], name


def exact_dora(kernel, down, up, scale, magnitude):
    """`W'` by the paper's equation 5 in float64: each column has the length of its magnitude."""
    changed = kernel + scale * down @ up
    return magnitude * changed / np.sqrt(np.sum(changed**2, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_magnitudes_by_the_formula(dtype):
    rng = np.random.default_rng(0)
    kernel, down, up = (rng.standard_normal(shape) for shape in ((6, 5), (6, 2), (2, 5)))
    magnitude = rng.uniform(0.5, 2.0, 5)
    layer = small.filled(lambda: nn.Linear(6, 5, param_dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    layer.kernel[...] = jnp.asarray(kernel, dtype)
    factors = [{"": jnp.asarray(x, jnp.float32)} for x in (down, up)]
    adapters = nn.Adapters(*factors, 1.5, magnitude={"": jnp.asarray(magnitude, jnp.float32)})
    adapted_kernel = jax.jit(nn.apply_adapters)(layer, adapters).kernel[...]
    assert adapted_kernel.dtype == jnp.dtype(dtype)
    expected = exact_dora(np.asarray(layer.kernel[...], np.float64), down, up, 1.5, magnitude)
    np.testing.assert_allclose(adapted_kernel.astype(jnp.float32), expected, atol=4 * float(jnp.finfo(dtype).eps))


def test_a_column_of_zeros_stays_zero():
    """0 / 0 would be NaN, in the kernel and in every gradient."""
    layer = small.filled(lambda: nn.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(0)))
    layer.kernel[...] = layer.kernel[...].at[:, 1].set(0)
    zeros = nn.Adapters({"": jnp.zeros((3, 1))}, {"": jnp.zeros((1, 2))}, 1.0, {"": jnp.ones(2)})
    gradient = jax.grad(lambda a: jnp.sum(jnp.sin(nn.apply_adapters(layer, a)(jnp.ones(3)))))(zeros)
    assert not np.any(np.asarray(nn.apply_adapters(layer, zeros).kernel[...])[:, 1])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))


# --- Tied heads ------------------------------------------------------------------------------------------------------

TIED = {"tie_word_embeddings": True}
APART = {
    "an embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "a head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "both, otherwise": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
}


@pytest.mark.parametrize("name", slow_except(("an embedding",), APART))
def test_what_peft_adapts_apart_needs_a_head_apart(name, tmp_path):
    """PEFT leaves a tied head as it was when it adapts the embedding; one table cannot do that."""
    hf_model = hf_models.make_model("Llama", hf_models.CASES["llama 2"][1] | TIED | {"num_hidden_layers": 1})
    hf_model.save_pretrained(tmp_path / "base")
    tuned = adapted(hf_model, APART[name])
    tuned.save_pretrained(tmp_path / "adapter")
    base = interop.load(tmp_path / "base")
    with pytest.raises(ValueError, match=r"embedding and the head alike, as .* Untie it first: models.untie_head"):
        interop.load_adapters(base, tmp_path / "adapter")
    untied = models.untie_head(base)
    assert hf_parity.forward(tuned, untied) > 1e-2, "the adapters change the logits"
    adapters = interop.load_adapters(untied, tmp_path / "adapter")
    assert hf_parity.forward(tuned, nn.apply_adapters(untied, adapters)) <= FORWARD["float32"]


def test_the_bias_of_an_adapted_tied_head_stays(tmp_path):
    """The table and the head have one adapter here and two in PEFT; the bias is that of the head alone."""
    hf_model = hf_models.make_model(*hf_models.ENCODERS["distilbert"])
    hf_model.save_pretrained(tmp_path / "base")
    base, rng = interop.load(tmp_path / "base"), np.random.default_rng(0)
    rows, features = base.embedding.shape
    down, up, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((rows, 2), (2, features), (rows,)))
    adapters = nn.Adapters({"embedding": down}, {"embedding": up}, 0.5, replaced={"head_bias": bias})
    interop.save_adapters(base, adapters, tmp_path / "saved", family="distilbert")
    tuned = peft.PeftModel.from_pretrained(hf_model, tmp_path / "saved").eval()
    assert hf_parity.forward(tuned, nn.apply_adapters(base, adapters)) <= FORWARD["float32"]
    again = interop.load_adapters(base, tmp_path / "saved")
    assert hf_parity.forward(tuned, nn.apply_adapters(base, again)) <= FORWARD["float32"]


def test_an_untied_head_is_the_embedding():
    tied = small.model("rotary")
    untied = models.untie_head(tied)
    assert (untied.config.tied_head, tied.config.tied_head) == (False, True)
    tokens = small.tokens(2, 5)
    np.testing.assert_allclose(*small.jit(lambda *m: [x(tokens).logits for x in m])(untied, tied), **small.CLOSE)
    with pytest.raises(ValueError, match=r"model: expected a tied head, got a model with a head of its own\."):
        models.untie_head(untied)
    with pytest.raises(TypeError, match=r"model: expected a models.TransformerLM, got"):
        models.untie_head(3)


# --- Refusals --------------------------------------------------------------------------------------------------------

CONFIG = models.llama(vocab_size=19, context=16, width=8, depth=1, num_heads=2, kv_heads=1, scan=False)
MODEL = small.filled(lambda: models.create(CONFIG.replace(tied_head=False)))
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path):
    """A file of DoRA adapters with a head saved whole."""
    adapters = nn.lora(MODEL, 2, 0)
    magnitude = {name: jnp.ones(x.shape[-1]) for name, x in adapters.up.items()}
    head = {"head.kernel": arrays_by_path(MODEL)["head.kernel"] + 1}
    interop.save_adapters(MODEL, nn.Adapters(adapters.down, adapters.up, 1.0, magnitude, head), tmp_path)
    return tmp_path


def test_what_is_written(folder):
    fields = json.loads((folder / "adapter_config.json").read_text())
    assert (fields["use_dora"], fields["modules_to_save"], fields["bias"]) == (True, ["lm_head"], "none")
    names = load_file(folder / "adapter_model.safetensors").keys()
    assert {f"{QUERY}.lora_magnitude_vector", "base_model.model.lm_head.weight"} <= names


ARRAYS = {
    "no magnitude": (
        lambda x: x.pop(f"{QUERY}.lora_magnitude_vector"),
        r"expected a magnitude for each layer .*q_proj",
    ),
    "a magnitude of another size": (
        lambda x: x.update({f"{QUERY}.lora_magnitude_vector": np.ones(3, np.float32)}),
        r"expected a magnitude for each of 8 features of model.layers.0.self_attn.q_proj.weight, got float32\[3\]",
    ),
    "a head of another size": (
        lambda x: x.update({"base_model.model.lm_head.weight": np.ones((21, 8), np.float32)}),
        r"expected lm_head.weight of shape \(19, 8\), got float32\[21,8\]. If tokens were added",
    ),
    "a bias of the factors": (
        lambda x: x.update({f"{QUERY}.lora_B.bias": np.ones(8, np.float32)}),
        r"got unused: .*q_proj.lora_B.bias",
    ),
    "one factor of an embedding": (
        lambda x: x.update({"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((2, 19), np.float32)}),
        r"expected both factors of model.embed_tokens, got only .*lora_embedding_A",
    ),
    "an embedding of another size": (
        lambda x: x.update(
            {
                f"base_model.model.model.embed_tokens.lora_{name}": np.ones(shape, np.float32)
                for name, shape in (("embedding_A", (2, 21)), ("embedding_B", (8, 2)), ("magnitude_vector", (8,)))
            }
        ),
        r"expected factors \[r, 19\] and \[8, r\] for model.embed_tokens.weight, got float32\[2,21\], float32\[8,2\]",
    ),
    "a copy of another base": (
        lambda x: x.update({f"{QUERY}.base_layer.weight": np.ones((8, 8), np.float32)}),
        r"got unused: .*q_proj.base_layer.weight",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_named(folder, name):
    change, message = ARRAYS[name]
    path = folder / "adapter_model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    with pytest.raises(ValueError, match=message):
        interop.load_adapters(MODEL, folder)


FIELDS = {
    "bias": ({"bias": "some"}, r"expected bias = 'none' or 'lora_only' or 'all'"),
    "lora_bias": ({"lora_bias": True}, r"expected lora_bias = False"),
    "tokens": ({"trainable_token_indices": [1]}, r"expected LoRA or DoRA, got also trainable_token_indices"),
    "no magnitudes": ({"use_dora": False}, r"got unused: .*lora_magnitude_vector"),
    "a magnitude of a text": ({"use_dora": "yes"}, r"expected use_dora to be true or false"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_configs_that_are_refused(folder, name):
    changes, message = FIELDS[name]
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        interop.load_adapters(MODEL, folder)


LAYER = "blocks.rest.0.attention.projections.joined"
FACTORS = jax.tree.map(lambda x: x + 1, nn.lora(MODEL, 2, 0))
WRONG = {
    "some magnitudes": (
        {"magnitude": {}},
        r"adapters: expected a magnitude for every adapted layer or for none, got none for blocks.rest.0.attention",
    ),
    "a magnitude of no layer": ({"magnitude": {"x": jnp.ones(2)}}, r"magnitudes of adapted kernels, got some of x"),
    "a short magnitude": (
        {"magnitude": {LAYER: jnp.ones(2)}},
        r"expected a magnitude for each column of the kernel \(8, 16\) at 'blocks.rest.0.*', got float32\[2\]",
    ),
    "an array of no model": ({"replaced": {"x": jnp.ones(2)}}, r"expected replaced arrays of this module, got 'x'"),
    "an array of another shape": (
        {"replaced": {"embedding": jnp.ones((2, 3))}},
        r"got 'embedding', float32\[2,3\], where it has float32\[19,8\]",
    ),
    "both": (
        {"replaced": {f"{LAYER}.kernel": jnp.ones((8, 16))}},
        r"expected a layer that is adapted or replaced, got both for model.layers.0.self_attn.q_proj.weight",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_adapters_that_do_not_fit_are_not_saved(name, tmp_path):
    fields, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        interop.save_adapters(MODEL, nn.Adapters(FACTORS.down, FACTORS.up, 1.0, **fields), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wrapped_names_are_recognised(folder):
    """The same file from a compiled model."""
    path = folder / "adapter_model.safetensors"
    expected = interop.load_adapters(MODEL, folder)
    save_file({f"_orig_mod.{name}": x for name, x in load_file(path).items()}, path)
    found = interop.load_adapters(MODEL, folder)
    small.assert_trees_close(found, expected)
