"""A small GPT in plain PyTorch and one training step of it: the peer of the training-step benchmark.

It is written for this benchmark from the description of the architecture, with the parts that PyTorch recommends: the
fused attention kernel, one product for query, key and value, and the fused AdamW. Nothing here imports JAX, so a
process that times this model has no second thread pool.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.gpt_setting import Setting


class Attention(nn.Module):
    """Causal self-attention over heads, without biases."""

    def __init__(self, setting: Setting):
        super().__init__()
        self.num_heads = setting.num_heads
        self.project = nn.Linear(setting.width, 3 * setting.width, bias=False)
        self.output = nn.Linear(setting.width, setting.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to `[B, T, D]`; the output has the same shape."""
        heads = self.project(x).unflatten(-1, (3, self.num_heads, -1))  # [B, T, 3, N, H]
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [B, N, T, H]
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm block: norm, attention, residual; norm, feed-forward, residual."""

    def __init__(self, setting: Setting):
        super().__init__()
        width = setting.width
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(setting)
        self.feed_norm = nn.LayerNorm(width, bias=False)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer to `[B, T, D]`; the output has the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed(self.feed_norm(x))


class GPT(nn.Module):
    """Learned token and position embeddings, blocks, a final norm, and the token embedding as the output head."""

    def __init__(self, setting: Setting):
        super().__init__()
        self.tokens = nn.Embedding(setting.vocab_size, setting.width)
        self.positions = nn.Embedding(setting.context, setting.width)
        self.blocks = nn.Sequential(*(Block(setting) for _ in range(setting.depth)))
        self.norm = nn.LayerNorm(setting.width, bias=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of all parameters, so that another implementation can start from the same numbers."""
        return {name: parameter.detach().numpy().copy() for name, parameter in self.named_parameters()}

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean cross-entropy of `targets [B, T]` after `tokens [B, T]`, in nats."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        logits = functional.linear(self.norm(self.blocks(x)), self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def adamw(model: GPT, setting: Setting, fused: bool = True) -> torch.optim.AdamW:
    """AdamW that decays matrices only; `fused=False` is the foreach form, slower on the CPUs that we tried."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": setting.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    form = {"fused": True} if fused else {"foreach": True}
    return torch.optim.AdamW(groups, lr=setting.learning_rate, betas=setting.betas, **form)


def training_step(
    model: GPT, setting: Setting, compiled: bool = False, fused: bool = True
) -> Callable[[np.ndarray, np.ndarray], torch.Tensor]:
    """A function that makes one whole step on a batch (forward, backward, clip, AdamW) and returns the loss."""
    optimizer = adamw(model, setting, fused)
    loss_of = torch.compile(model) if compiled else model

    def step(tokens: np.ndarray, targets: np.ndarray) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(torch.from_numpy(tokens), torch.from_numpy(targets))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), setting.clip)
        optimizer.step()
        return loss.detach()

    return step
