"""Splitting documents into training and held-out ones, so that no text is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jax_attention.core.checks import fail_unless
from jax_attention.data.documents import Document


def split_documents(documents: Sequence[Document], fraction: float = 0.1) -> tuple[list[Document], list[Document]]:
    """Split documents into training and held-out ones: whole files, chosen by a hash of their names.

        held out = files in the order of sha256(name), each taken if it brings the sum of bytes nearer to its goal

    The choice depends neither on the order of the documents nor on the place of their folder. Files with equal texts
    are on the same side. A single text is cut by position instead: its beginning trains, its end is held out.

    Args:
        documents: documents, at least one with text. Both results keep their order.
        fraction: share of the UTF-8 bytes (of the characters of a single text) to hold out, between 0 and 1.

    Returns:
        `(training, held_out)`, two lists that are not empty.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or the text is too short to be split.

    Example:
        >>> from jax_attention import data
        >>> data.split_documents([data.Document("a", "0123456789")])
        ([Document(name='a[:9]', text='012345678')], [Document(name='a[9:]', text='9')])

    Reference:
        nanoGPT's `data/shakespeare_char/prepare.py` cuts its one file at the same character.
    """
    fail_unless(
        not isinstance(fraction, bool) and isinstance(fraction, (int, float)) and 0 < fraction < 1,
        f"fraction: expected a number between 0 and 1, got {fraction!r}. 0.1 holds out a tenth.",
    )
    documents = list(documents)
    groups: dict[str, list[int]] = {}
    for index, document in enumerate(documents):
        if document.text:
            groups.setdefault(document.text, []).append(index)
    fail_unless(len(groups) > 0, f"documents: expected text, got {len(documents)} empty document(s). Add some text.")
    if len(groups) == 1:
        cut = [_cut(documents[index], fraction) for index in next(iter(groups.values()))]
        return [head for head, _ in cut], [tail for _, tail in cut]
    held_out = _choose_held_out(documents, list(groups.values()), fraction)
    training = [document for index, document in enumerate(documents) if index not in held_out]
    return training, [document for index, document in enumerate(documents) if index in held_out]


def name_hash(name: str) -> bytes:
    """Hash of a name that is the same in every process and on every machine."""
    # Python decodes file names that are not UTF-8 to surrogates, which strict encoding would refuse.
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def utf8_size(text: str) -> int:
    """Number of UTF-8 bytes of a text."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _choose_held_out(documents: list[Document], groups: list[list[int]], fraction: float) -> set[int]:
    """Indices of the documents to hold out; the documents of a group have the same text."""
    sizes = [len(group) * utf8_size(documents[group[0]].text) for group in groups]
    hashes = [min(name_hash(documents[index].name) for index in group) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: (hashes[g], documents[groups[g][0]].text))
    goal, total, chosen = fraction * sum(sizes), 0, []
    for g in order:
        if abs(total + sizes[g] - goal) < abs(total - goal):
            chosen.append(g)
            total += sizes[g]
    smallest = min(order, key=lambda g: sizes[g])
    if not chosen:
        chosen = [smallest]
    elif len(chosen) == len(groups):
        chosen.remove(smallest)
    return {index for g in chosen for index in groups[g]}


def _cut(document: Document, fraction: float) -> tuple[Document, Document]:
    """The beginning of a document, and its held-out end."""
    name, text = document
    at = int(len(text) * (1 - fraction))
    fail_unless(
        0 < at < len(text),
        f"documents: expected a text long enough to hold out {fraction:g} of it, got {len(text)} character(s) in "
        f"{name!r}. Add text, or more files.",
    )
    return Document(f"{name}[:{at}]", text[:at]), Document(f"{name}[{at}:]", text[at:])
