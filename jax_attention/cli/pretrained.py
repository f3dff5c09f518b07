"""A Hugging Face folder, or one of PEFT, on the command line: to generate with, to judge, to start a training from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax_attention import data, interop, models, nn
from jax_attention.data.subwords import DEFINITION
from jax_attention.data.tokenizer import SETTINGS
from jax_attention.interop.hugging_face import described

CONFIG, ADAPTERS = "config.json", "adapter_config.json"
BESIDE = (
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""Files about tokens that a folder may have; they go along unchanged."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
LONGEST = 1024
"""Tokens in a row unless said otherwise: contexts of published models are longer than anyone's first try should be."""


@dataclass(frozen=True)
class Pretrained:
    """A Hugging Face folder that was opened: its model's config and its tokenizer; perhaps adapters beside it."""

    folder: Path
    family: str
    config: models.LMConfig
    tokenizer: data.Tokenizer
    adapters: Path | None = None

    packed = False

    @property
    def length(self) -> int:
        """Tokens in a row."""
        return min(self.config.context, LONGEST)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return stop_tokens(self.folder)

    def load(self, step: int | None = None) -> tuple[models.TransformerLM, str]:
        """The model, and what stands for the step."""
        if step is not None:
            raise ValueError(
                f"step: expected none, as {str(self.folder)!r} is a Hugging Face folder with one model, got {step}."
            )
        model = interop.load(self.folder)
        if self.adapters is not None:
            model = nn.apply_adapters(model, interop.load_adapters(model, self.adapters, family=self.family))
        return model, "-"

    def origin(self) -> dict[str, str]:
        """What a run has to remember of it."""
        return {"folder": str(self.folder.absolute()), "family": self.family, "fingerprint": fingerprint(self.folder)}


def is_pretrained(folder: Path) -> bool:
    """Whether it is a folder of Hugging Face: of a model, or of adapters for one."""
    try:
        return (folder / ADAPTERS).is_file() or "model_type" in _read(folder / CONFIG)
    except (OSError, ValueError, TypeError):
        return False


def open_pretrained(folder: Path) -> Pretrained:
    """A model with a tokenizer that fits it; or adapters, whose base is on this machine."""
    if (folder / ADAPTERS).is_file() and not (folder / CONFIG).is_file():
        name = _read(folder / ADAPTERS).get("base_model_name_or_path")
        if name is None or not Path(name).is_dir():
            raise FileNotFoundError(
                f"base_model_name_or_path: expected the folder of the base model in {str(folder / ADAPTERS)!r}, got "
                f"{name!r}, which is none on this machine. Write the folder there."
            )
        own = folder if (folder / DEFINITION).is_file() else Path(name)
        return dataclasses.replace(open_pretrained(Path(name)), tokenizer=_tokenizer(own), adapters=folder)
    family, config = described(folder)
    if family.pair:
        raise ValueError(
            f"folder: expected a language model, got a {family.model_type}, which reads a source first, in "
            f"{str(folder)!r}. In Python: decoding.generate(interop.load(folder).condition(source), start, …)."
        )
    if config.sees_future():
        raise ValueError(
            f"folder: expected a language model, got a {family.model_type}, an encoder that sees what it is to "
            f"say, in {str(folder)!r}. In Python: interop.load(folder)(tokens).logits."
        )
    tokenizer = _tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"tokenizer: expected at most the {config.vocab_size} ids that the model embeds, got one of "
            f"{tokenizer.vocab_size} in {str(folder)!r}. It belongs to another model, or tokens were added to it: "
            "model.resize_token_embeddings(len(tokenizer)) in transformers makes room."
        )
    return Pretrained(folder, family.model_type, config, tokenizer)


def _tokenizer(folder: Path) -> data.Tokenizer:
    """With the special tokens that the model saw at the beginning of its texts."""
    kinds = [folder / name for name in (DEFINITION, SETTINGS) if (folder / name).is_file()]
    if not kinds:
        raise FileNotFoundError(
            f"tokenizer: expected {DEFINITION} in {str(folder)!r}, got none. Make it of the files that are there: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    if kinds[0].name == SETTINGS:
        return data.load_tokenizer(folder)
    return dataclasses.replace(data.Subwords.load(kinds[0]), special_tokens=True)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def open_origin(folder: Path) -> Pretrained:
    """A model to train further."""
    if not is_pretrained(folder):
        raise ValueError(
            f"from: expected the folder of a Hugging Face model, got {str(folder)!r}, which has no {CONFIG} with a "
            "model_type. Download the whole folder; of a run make one: jax-attention export RUN FOLDER."
        )
    source = open_pretrained(folder)
    if source.adapters is not None:
        raise ValueError(
            f"from: expected a model, got adapters in {str(folder)!r}. Merge them into their base first: "
            "PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER)."
        )
    return source


def load_as(folder: Path, config: models.LMConfig) -> models.TransformerLM:
    """The folder's model under a config that differs in how it is trained and computed, not in what it is."""
    model = interop.load(folder, dtype=config.dtype, param_dtype=config.param_dtype, scan=config.scan)
    return models.from_dict(config, models.to_dict(model))


def load_origin(origin: dict[str, str], config: models.LMConfig) -> models.TransformerLM:
    """The model that a run started from, still the same."""
    folder = Path(origin["folder"])
    if not folder.is_dir():
        raise FileNotFoundError(
            f"run: expected the model that it started from in {str(folder)!r}, got no such folder. Put it back there, "
            f"or write its new place into the run's {CONFIG}, under origin."
        )
    if fingerprint(folder) != origin["fingerprint"]:
        raise ValueError(
            f"run: expected the model that it started from in {str(folder)!r}, got another one: its config or weights "
            "changed since. Put the old files back."
        )
    return load_as(folder, config)


def fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of the config and the weights."""
    digest = hashlib.sha256()
    weights = [*folder.glob("model*.safetensors"), *folder.glob("flax_model*.msgpack")]
    for path in (folder / CONFIG, *sorted(weights)):
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def stop_tokens(folder: Path) -> tuple[int, ...]:
    """What the folder says ends a text; its generation config is asked first."""
    for name in ("generation_config.json", CONFIG):
        path = folder / name
        found = _read(path).get("eos_token_id") if path.is_file() else None
        if found is not None:
            return tuple(found) if isinstance(found, list) else (found,)
    return ()


def token_ids(folder: Path) -> dict[str, Any]:
    """The special ids that the folder's config names."""
    config = _read(folder / CONFIG)
    return {name: config[name] for name in TOKEN_IDS if config.get(name) is not None}


def copy_beside(source: Path, target: Path, names: tuple[str, ...] = BESIDE) -> None:
    """Those of the files that are there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
