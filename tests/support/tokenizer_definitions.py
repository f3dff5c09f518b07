"""Tokenizers with the decoders of published families, made without downloads: Llama, Gemma, T5, BERT and others."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders

from jax_attention import data

MARK = "▁"


def word_level(words: list[str], decoder, specials=(), pre_tokenizer=None) -> data.Subwords:
    """A tokenizer of whole words with a decoder of the library; special tokens have the last ids."""
    model = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
    engine = tokenizers.Tokenizer(model)
    if decoder is not None:
        engine.decoder = decoder
    if pre_tokenizer is not None:
        engine.pre_tokenizer = pre_tokenizer
    engine.add_special_tokens(list(specials))
    return data.Subwords(engine.to_str())


def marked(words: list[str]) -> list[str]:
    """Words with sentencepiece's mark of a space in front."""
    return [MARK + word for word in words]


def byte_tokens() -> list[str]:
    return [f"<0x{i:02X}>" for i in range(256)]


def llama_decoder() -> decoders.Decoder:
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return decoders.Sequence(steps)


def gemma_decoder() -> decoders.Decoder:
    return decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()])


def rewriting_decoder() -> decoders.Decoder:
    """One that sees the whole text: a later token may change what came before."""
    return decoders.Sequence([decoders.Fuse(), decoders.Replace("aa", "b")])


PIECES = ["<unk>", *byte_tokens(), MARK, MARK * 2, "a", "b", "ab", "##b", "cat</w>", "|", "<pad>", "\ufffd", "é", ""]
PIECES += ["▁a", "▁the", "the", "'s", "n't", "."]
DECODERS = {
    "none": None,
    "llama": llama_decoder(),
    "gemma": gemma_decoder(),
    "bytes, then metaspace": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    "metaspace": decoders.Metaspace(),
    "wordpiece": decoders.WordPiece(),
    "bpe": decoders.BPEDecoder(),
    "ctc": decoders.CTC(),
    "strip": decoders.Sequence([decoders.Replace(MARK, " "), decoders.Fuse(), decoders.Strip(" ", 3, 0)]),
    "replace, then wordpiece": decoders.Sequence([decoders.Replace("a", ""), decoders.WordPiece()]),
    "byte-level in a sequence": decoders.Sequence([decoders.ByteLevel()]),
    "rewriting": rewriting_decoder(),
}


def by_decoder() -> dict[str, data.Subwords]:
    """The same pieces under every decoder, with two special tokens and an added one."""
    return {name: word_level(PIECES, decoder, ["<s>", "</s>"]) for name, decoder in DECODERS.items()}
