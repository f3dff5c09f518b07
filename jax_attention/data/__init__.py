"""Text, tokens and batches for language and sequence-to-sequence models, in NumPy and without downloads.

A tokenizer turns documents into token ids, and a source turns ids into batches; pairs of a source and a target text go
the same way. A batch is a pure function of (seed, step), so a run that resumes at step n just asks for batch n.
"""

from jax_attention.data import tasks
from jax_attention.data.corpus import Corpus, HeldOut, held_out, open_corpus, prepare
from jax_attention.data.documents import Document, read_documents
from jax_attention.data.ngram import Baselines, Ngram, ngram_baselines
from jax_attention.data.packed import PackedDocuments
from jax_attention.data.pairs import Pair, read_pairs, split_pairs
from jax_attention.data.seq2seq_batches import Seq2SeqBatch, Seq2SeqBatches, pad_rows
from jax_attention.data.sources import Batch, Batches, Source, Windows
from jax_attention.data.split import split_documents
from jax_attention.data.stdlib_corpus import standard_library_corpus
from jax_attention.data.tokenizers.characters import Bytes, Characters
from jax_attention.data.tokenizers.load import load_tokenizer
from jax_attention.data.tokenizers.subwords import Subwords
from jax_attention.data.tokenizers.tokenizer import StreamDecoder, Tokenizer
from jax_attention.data.tokenizers.words import Words
from jax_attention.data.tokens import Tokens, open_tokens, tokenize, write_tokens

__all__ = [
    "Document", "read_documents", "split_documents", "standard_library_corpus",
    "Tokenizer", "Characters", "Words", "Bytes", "Subwords", "load_tokenizer", "StreamDecoder",
    "Tokens", "tokenize", "write_tokens", "open_tokens",
    "Batch", "Batches", "Source", "Windows", "PackedDocuments",
    "Pair", "read_pairs", "split_pairs", "tasks",
    "Seq2SeqBatch", "Seq2SeqBatches", "pad_rows",
    "Baselines", "Ngram", "ngram_baselines",
    "Corpus", "HeldOut", "held_out", "open_corpus", "prepare",
]  # fmt: skip
