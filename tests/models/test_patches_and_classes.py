"""Images read patch by patch, and classes of texts and of tokens."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jax_attention import decoding, masks, models
from jax_attention.cache import EMPTY
from tests.models import small
from tests.support.arrays import difference
from tests.support.tiers import slow

IMAGE, PATCH = (6, 8, 2), (3, 2)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, *IMAGE)), jnp.float32)


def encoder(position="learned", **changes) -> models.PatchEncoder:
    config = small.config(position, mask=None, **changes)
    return small.filled(lambda: models.PatchEncoder(config, image=IMAGE, patch=PATCH, rngs=nnx.Rngs(0)))


def classifier(each=False, **changes) -> models.Classifier:
    config = small.config("rotary", **{"mask": None} | changes)
    return small.filled(lambda: models.Classifier(config, 3, each=each, rngs=nnx.Rngs(0)))


def test_patches_are_those_of_pytorch():
    """`torch.nn.functional.unfold` gives the same patches, with channels first inside of a patch."""
    torch_patches = torch.nn.functional.unfold(
        torch.from_numpy(np.array(IMAGES)).permute(0, 3, 1, 2), PATCH, stride=PATCH
    )
    expected = torch_patches.permute(0, 2, 1).reshape(2, 8, 2, 6).permute(0, 1, 3, 2).reshape(2, 8, 12)
    model = encoder()
    np.testing.assert_array_equal(model.patches(IMAGES), expected.numpy())
    assert (model.grid, model.count) == ((2, 4), 8)


def test_the_formula_by_hand_and_any_batch_dimensions():
    model = encoder(depth=1)

    @small.jit
    def run(model):
        x = model.patches(IMAGES) @ model.embed.kernel[...] + model.embed.bias[...] + model.position[...]
        return model(IMAGES), model.body(x), model(IMAGES[1]), model(IMAGES[None])

    found, expected, one, nested = map(np.asarray, run(model))
    np.testing.assert_allclose(found, expected, **small.CLOSE)
    np.testing.assert_allclose(one, found[1], **small.CLOSE)
    np.testing.assert_allclose(nested[0], found, **small.CLOSE)


def test_only_positions_tell_patches_apart():
    rolled = np.roll(IMAGES, PATCH[1], axis=2)
    order = np.array([3, 0, 1, 2, 7, 4, 5, 6])
    for position, equal in (("none", True), ("learned", False)):
        run = small.jit(lambda model: (model(IMAGES), model(rolled)))
        original, moved = map(np.asarray, run(encoder(position, depth=1)))
        assert np.allclose(original[:, order], moved, atol=1e-5) == equal


@pytest.mark.slow
def test_a_decoder_writes_of_an_image():
    decoder = small.model("learned", depth=1, memory_size=16)
    memory = small.jit(lambda decoder, encoder: decoder.project_memory(encoder(IMAGES)))(decoder, encoder(depth=1))
    out = decoding.generate(models.ConditionedDecoder(decoder, memory), [[1], [2]], max_new_tokens=3)
    written = np.concatenate([[[1], [2]], out.tokens], axis=1)
    full = small.jit(lambda decoder, memory: decoder(written, memory=memory).logits)(decoder, memory)
    np.testing.assert_array_equal(np.argmax(full[:, :-1], axis=-1), out.tokens)


def test_dropout_of_patches():
    model = encoder(depth=1, dropout=0.5)
    run = small.jit(lambda model, seed: model(IMAGES, rng=jax.random.key(seed)))
    np.testing.assert_array_equal(run(model, 0), run(model, 0))
    assert difference(run(model, 0), run(model, 1)) > 0.1


TOKENS = small.tokens(2, 5)
POSITIONS = jnp.array([[0, 1, 2, 3, 4], [EMPTY, 0, 1, 2, EMPTY]])


@pytest.mark.slow
def test_a_class_is_read_from_the_mean_of_real_tokens():
    model = classifier()

    @small.jit
    def run(model):
        hidden = model.encoder.hidden(TOKENS)[0]
        return (
            model(TOKENS).logits,
            hidden.mean(axis=1) @ model.head.kernel[...] + model.head.bias[...],
            model(jnp.where(POSITIONS == EMPTY, -1, TOKENS), positions=POSITIONS).logits,
            model(TOKENS[1, 1:4]).logits,
            model(TOKENS, positions=jnp.full(5, EMPTY)).logits,
        )

    found, expected, padded, single, none = run(model)
    np.testing.assert_allclose(found, expected, **small.CLOSE)
    np.testing.assert_allclose(padded, jnp.stack([found[0], single]), **small.CLOSE)
    np.testing.assert_allclose(none, jnp.broadcast_to(model.head.bias[...], (2, 3)), **small.CLOSE)


def test_every_token_has_a_class_and_sees_what_the_mask_allows():
    capture = models.Capture(weights="all", hidden=(0,))
    for changes, sees in (({}, True), ({"mask": masks.causal()}, False)):
        model = classifier(each=True, depth=1, windows=(None,), **changes)
        run = small.jit(lambda model, tokens: model(tokens, capture=capture))
        out = run(model, TOKENS)
        assert out.logits.shape == (2, 5, 3)
        assert (sorted(out.captured.weights), sorted(out.captured.hidden)) == ([0], [0])
        tokens = np.array(TOKENS)
        tokens[:, -1] = (tokens[:, -1] + 1) % small.VOCABULARY
        changed, logits = np.asarray(run(model, tokens).logits), np.asarray(out.logits)
        assert np.any(changed[:, 0] != logits[:, 0]) == sees


BAD = {
    "not whole": (lambda: models.PatchEncoder(SMALL, image=(6, 8, 1), patch=(4, 2), rngs=KEY), "patch: expected div"),
    "no channels": (
        lambda: models.PatchEncoder(SMALL, image=(6, 8), patch=(3, 2), rngs=KEY),
        "image: expected 3 sizes",
    ),
    "one number": (lambda: models.PatchEncoder(SMALL, image=(6, 8, 1), patch=2, rngs=KEY), "patch: expected 2 sizes"),
    "added positions": (
        lambda: models.PatchEncoder(small.config("sinusoidal"), image=(6, 8, 1), patch=(3, 2), rngs=KEY),
        "position: expected 'learned', 'none' or one that belongs to the attention, got 'sinusoidal'",
    ),
    "another image": (lambda: encoder()(IMAGES[..., 0]), r"images: expected .*\[..., 6, 8, 2\], got float32\[2,6,8\]"),
    "a memory of patches": (
        lambda: models.PatchEncoder(dataclasses.replace(SMALL, memory_size=8), image=(6, 8, 1), patch=(3, 2), rngs=KEY),
        "config: expected memory_size None, as the encoder reads nothing but images, got 8",
    ),
    "a memory of classes": (
        lambda: models.Classifier(dataclasses.replace(SMALL, memory_size=8), 2, rngs=KEY),
        "config: expected memory_size None, as a classifier reads nothing but tokens, got 8",
    ),
    "no classes": (lambda: models.Classifier(SMALL, 0, rngs=KEY), "classes: expected an int >= 1"),
    "each of what": (lambda: models.Classifier(SMALL, 2, each=1, rngs=KEY), "each: expected True for every token"),
    "text": (lambda: classifier()(TOKENS * 1.0), "tokens: expected integers"),
    "positions": (lambda: classifier()(TOKENS, positions=jnp.arange(3)), "positions: expected one position per row"),
}
SMALL, KEY = small.config("learned", mask=None), nnx.Rngs(0)


@pytest.mark.parametrize("name", BAD)
def test_wrong_calls_are_refused(name):
    call, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    "positions", [None, *slow(pytest.param(jnp.zeros((2, 0), jnp.int32), id="positions"))], ids=lambda x: "none"
)
def test_a_text_of_no_tokens_has_the_logits_of_the_bias(positions):
    model = classifier()
    found = small.jit(lambda model: model(jnp.zeros((2, 0), jnp.int32), positions=positions).logits)(model)
    np.testing.assert_array_equal(found, np.broadcast_to(model.head.bias[...], (2, 3)))
