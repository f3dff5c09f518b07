"""Hugging Face folders of models and of LoRA adapters, read and written."""

from jax_attention.interop.hf.load_save import load, save
from jax_attention.interop.hf.peft import load_adapters, save_adapters
from jax_attention.interop.hf.token_ids import stop_tokens

__all__ = ["load", "load_adapters", "save", "save_adapters", "stop_tokens"]
