"""Part documents into training and held-out ones, so that no text is in both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from jax_attention.core.checks import fail_unless
from jax_attention.data.documents import Document


def split_documents(documents: Sequence[Document], fraction: float = 0.1) -> tuple[list[Document], list[Document]]:
    """Part documents into training and held-out ones: whole files, chosen by a hash of their names.

        held out = files in the order of sha256(name), each taken if it brings the sum of bytes nearer to the wanted one

    The choice depends neither on the order of the documents nor on where the folder lies. Files with the same text stay
    together. A single text is cut by position instead: the first characters train, the last are held out.

    Args:
        documents: at least one with text. Both results keep their order.
        fraction: of the UTF-8 bytes (of the characters of a single text) to hold out, between 0 and 1.

    Returns:
        `(training, held_out)`, neither of them empty.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or the text cannot be parted.

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
    held = _chosen(documents, list(groups.values()), fraction)
    training = [document for index, document in enumerate(documents) if index not in held]
    return training, [document for index, document in enumerate(documents) if index in held]


def name_hash(name: str) -> bytes:
    """A stable hash; names of files may hold bytes that are not UTF-8."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


def utf8_size(text: str) -> int:
    """How many UTF-8 bytes a text has."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _chosen(documents: list[Document], groups: list[list[int]], fraction: float) -> set[int]:
    """The indices to hold out; a group holds documents with one and the same text."""
    sizes = [len(group) * utf8_size(documents[group[0]].text) for group in groups]
    hashes = [min(name_hash(documents[index].name) for index in group) for group in groups]
    order = sorted(range(len(groups)), key=lambda g: (hashes[g], documents[groups[g][0]].text))
    wanted, sum_held, held = fraction * sum(sizes), 0, []
    for g in order:
        if abs(sum_held + sizes[g] - wanted) < abs(sum_held - wanted):
            held.append(g)
            sum_held += sizes[g]
    smallest = min(order, key=lambda g: sizes[g])
    if not held:
        held = [smallest]
    elif len(held) == len(groups):
        held.remove(smallest)
    return {index for g in held for index in groups[g]}


def _cut(document: Document, fraction: float) -> tuple[Document, Document]:
    name, text = document
    at = int(len(text) * (1 - fraction))
    fail_unless(
        0 < at < len(text),
        f"documents: expected a text long enough to hold out {fraction:g} of it, got {len(text)} character(s) in "
        f"{name!r}. Add text, or more files.",
    )
    return Document(f"{name}[:{at}]", text[:at]), Document(f"{name}[{at}:]", text[at:])
