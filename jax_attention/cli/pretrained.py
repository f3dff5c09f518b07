"""Hugging Face and PEFT folders on the command line: opened for generation, evaluation or further training."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jax_attention import data, interop, models, nn
from jax_attention.core.foreign_files import foreign_file, read_json
from jax_attention.core.text import quote, quote_path
from jax_attention.data.tokenizers.subwords import DEFINITION
from jax_attention.data.tokenizers.tokenizer import SETTINGS
from jax_attention.interop.hf.config import read_config
from jax_attention.interop.hf.folder import MAX_CONFIG_BYTES

CONFIG, ADAPTERS = "config.json", "adapter_config.json"
TOKENIZER_FILES = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""Files about tokens and generation that a folder may have; they are copied unchanged."""
MAX_PATH = 4096
"""Longest path that file systems take."""
MAX_LENGTH = 1024
"""Default upper limit of tokens per row: a whole context of a published model is too much memory for a first try."""


@dataclass(frozen=True)
class Pretrained:
    """An opened Hugging Face folder: config and tokenizer of the model, and the folder of its adapters, if any."""

    folder: Path
    family: str
    config: models.LMConfig
    tokenizer: data.Tokenizer
    adapters: Path | None = None

    packed = False

    @property
    def length(self) -> int:
        """Tokens per row."""
        return min(self.config.context, MAX_LENGTH)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""
        return interop.stop_tokens(self.folder)

    def encode(self, text: str) -> np.ndarray:
        """Ids of the tokens of a text."""
        return self.tokenizer.encode(text)

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, str]:
        """The model, and "-" in place of a step."""
        if step is not None:
            raise ValueError(
                f"step: expected none, as {str(self.folder)!r} is a Hugging Face folder with one model, got {step}."
            )
        model = interop.load(self.folder)
        if self.adapters is not None:
            model = nn.apply_adapters(model, interop.load_adapters(model, self.adapters, family=self.family))
        return model, "-"

    def origin(self) -> dict[str, str]:
        """What a run stores about the model that it started from: folder, family and fingerprint."""
        return {"folder": str(self.folder.absolute()), "family": self.family, "fingerprint": fingerprint(self.folder)}


def is_pretrained(folder: Path) -> bool:
    """Whether the folder holds a Hugging Face model, or adapters for one."""
    try:
        return (folder / ADAPTERS).is_file() or "model_type" in _read(folder / CONFIG)
    except (OSError, ValueError):
        return False


def open_pretrained(folder: Path, encoder_decoder: bool = False) -> Pretrained:
    """Open a model with a tokenizer that fits it, or adapters whose base model is on this machine.

    The config of an encoder-decoder, if one is expected, is that of its decoder.
    """
    if (folder / ADAPTERS).is_file() and not (folder / CONFIG).is_file():
        base = _base_folder(folder)
        tokenizer_folder = folder if (folder / DEFINITION).is_file() else base
        return dataclasses.replace(open_pretrained(base), tokenizer=_tokenizer(tokenizer_folder), adapters=folder)
    family, config = read_config(folder)
    if family.is_encoder_decoder and not encoder_decoder:
        raise ValueError(
            f"folder: expected a language model, got a {family.model_type}, which reads a source first, in "
            f"{str(folder)!r}. Give the source: jax-attention generate FOLDER --source TEXT."
        )
    config = config.decoder if family.is_encoder_decoder else config
    if config.sees_future():
        raise ValueError(
            f"folder: expected a language model, got a {family.model_type}, an encoder that sees the tokens it "
            f"would predict, in {str(folder)!r}. In Python: interop.load(folder)(tokens).logits."
        )
    tokenizer = _tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"tokenizer: expected at most the {config.vocab_size} ids that the model embeds, got one of "
            f"{tokenizer.vocab_size} in {str(folder)!r}. It belongs to another model, or tokens were added to it: "
            "model.resize_token_embeddings(len(tokenizer)) in transformers makes room."
        )
    return Pretrained(folder, family.model_type, config, tokenizer)


def _base_folder(folder: Path) -> Path:
    """The folder of the model that adapters belong to; adapters of adapters are refused, also of themselves."""
    name = _read(folder / ADAPTERS).get("base_model_name_or_path")
    if not isinstance(name, str) or "\0" in name or len(name) > MAX_PATH or not Path(name).is_dir():
        raise FileNotFoundError(
            f"base_model_name_or_path: expected the folder of the base model in {quote_path(folder / ADAPTERS)}, "
            f"got {quote(name)}, which is no folder on this machine. Write the path of the base model into that file."
        )
    if not (Path(name) / CONFIG).is_file():
        raise ValueError(
            f"base_model_name_or_path: expected a model with {CONFIG}, got {quote(name)}, which has none, in "
            f"{quote_path(folder / ADAPTERS)}. Write the path of the base model into that file."
        )
    return Path(name)


def _tokenizer(folder: Path) -> data.Tokenizer:
    """The tokenizer of a folder; it adds the special tokens that the model saw at the beginning of its texts."""
    files = [folder / name for name in (DEFINITION, SETTINGS) if (folder / name).is_file()]
    if not files:
        raise FileNotFoundError(
            f"tokenizer: expected {DEFINITION} in {str(folder)!r}, got none. Make it from the files in the folder: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    if files[0].name == SETTINGS:
        return data.load_tokenizer(folder)
    return dataclasses.replace(data.Subwords.load(files[0]), special_tokens=True)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, MAX_CONFIG_BYTES, "folder")


def open_origin(folder: Path) -> Pretrained:
    """Open a model to train further."""
    if not is_pretrained(folder):
        raise ValueError(
            f"from: expected the folder of a Hugging Face model or of a run, got {str(folder)!r}, which has no "
            f"{CONFIG} of either. Download the whole folder."
        )
    pretrained = open_pretrained(folder)
    for name in (CONFIG, *TOKENIZER_FILES):  # a run keeps copies of them
        if (folder / name).is_file():
            foreign_file(folder, name, "from")
    if pretrained.adapters is not None:
        raise ValueError(
            f"from: expected a model, got adapters in {str(folder)!r}. Merge them into their base first: "
            "PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER)."
        )
    return pretrained


def load_as(folder: Path, config: models.LMConfig) -> models.TransformerLM:
    """Load the folder's model with a config that differs in training and precision, not in architecture."""
    model = interop.load(folder, dtype=config.dtype, param_dtype=config.param_dtype, scan=config.scan)
    return models.from_dict(config, models.to_dict(model))


def load_origin(origin: dict[str, str], config: models.LMConfig) -> models.TransformerLM:
    """Load the model that a run started from; it must not have changed since."""
    folder = Path(origin["folder"])
    if not folder.is_dir():
        raise FileNotFoundError(
            f"run: expected the model that it started from in {str(folder)!r}, got no such folder. Put it back there, "
            f"or write its new path into the run's {CONFIG}, under origin."
        )
    if fingerprint(folder) != origin["fingerprint"]:
        raise ValueError(
            f"run: expected the model that it started from in {str(folder)!r}, got another one: its config or weights "
            "changed since. Put the old files back."
        )
    return load_as(folder, config)


def fingerprint(folder: Path) -> str:
    """SHA-256 of the config and the weights, its first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    weights = [*folder.glob("model*.safetensors"), *folder.glob("flax_model*.msgpack")]
    for path in (folder / CONFIG, *sorted(weights)):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def copy_files(source: Path, target: Path, names: tuple[str, ...] = TOKENIZER_FILES) -> None:
    """Copy the named files from one folder to another; files that are missing are skipped.

    A link that leads out of the folder is refused before anything is copied.
    """
    paths = [foreign_file(source, name, "folder") for name in names if (source / name).is_file()]
    target.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copyfile(path, target / path.name)
