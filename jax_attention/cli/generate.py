"""`jax-attention generate`: continue a prompt and stream the text."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from jax_attention import decoding, models
from jax_attention.cli import encoder_decoder, report, run_folder
from jax_attention.cli.own_code import OwnCode
from jax_attention.core.checks import check_int, fail_unless
from jax_attention.core.output import print_error, print_line, print_text

SAMPLING_OPTIONS = ("greedy", "temperature", "top_k", "top_p", "min_p", "stop", "seed")
"""Options that beam search would ignore."""
PENALTIES = ("repetition_penalty", "no_repeat_ngram_size", "min_new_tokens")
"""Logit transforms that greedy decoding and beam search take too."""


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a prompt with the model of a folder; the text is streamed.

    Args:
        folder: folder of a run, of a Hugging Face model, or of adapters saved by PEFT.
        prompt: the text to continue; - reads standard input. For an encoder-decoder the beginning of its target; none
            if left out.
        source: the text that an encoder-decoder reads, such as a T5; - reads standard input.
        step: step of a run's checkpoint; the one with the best validation loss if None.
        max_new_tokens: largest number of new tokens.
        greedy: always choose the likeliest token; excludes all sampling options.
        beams: number of beams of beam search, which prints the best text at the end; excludes all sampling options but
            the repetition penalty. --num-samples is then the number of texts to print.
        length_penalty: exponent of the length by which the log-probability of a finished beam is divided, 1 if None;
            only with --beams.
        temperature: divides the logits: above 1 more random, below 1 less; 0.8 if no sampling option is given.
        top_k: sample from the k likeliest tokens only.
        top_p: sample from the likeliest tokens whose probabilities sum to this.
        min_p: sample from tokens with at least this fraction of the largest probability.
        repetition_penalty: above 1 makes earlier tokens less likely.
        no_repeat_ngram_size: no sequence of this many tokens occurs twice, the prompt included.
        min_new_tokens: smallest number of new tokens before a stop token.
        num_samples: number of continuations; one if None.
        stop: texts that end a continuation.
        skip_special_tokens: leave special tokens out of the text.
        seed: seed of the random numbers; 0 if None.
        beyond_context: let prompt and new tokens exceed the context; not with learned positions. The model was not
            trained there.
        raw: on a terminal, print control characters of the text as they are, not as escapes.
        code: code of your own that may run.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    prompt: str | None = None
    source: str | None = None
    step: int | None = None
    max_new_tokens: int = 200
    greedy: bool = False
    beams: int | None = None
    length_penalty: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    min_new_tokens: int | None = None
    num_samples: int | None = None
    stop: tuple[str, ...] = ()
    skip_special_tokens: bool = False
    seed: int | None = None
    beyond_context: bool = False
    raw: bool = False
    code: OwnCode = field(default_factory=OwnCode)

    def run(self) -> None:
        """Load the model, continue the prompt, print."""
        transforms, samples = self.logit_transforms(), 1 if self.num_samples is None else self.num_samples
        if self.greedy and (self.num_samples, self.seed) != (None, None):
            raise ValueError(
                "greedy: expected no --num-samples and no --seed, as the text is always the same, got "
                f"num_samples = {self.num_samples}, seed = {self.seed}. Leave them out."
            )
        check_int("num_samples", samples, 1, "It is the number of continuations.")
        check_int("max_new_tokens", self.max_new_tokens, 1, "It is the largest number of new tokens.")
        fail_unless(all(self.stop), 'stop: expected texts of at least one character, got "". Leave it out.')
        self._check_beams(samples)
        run, prompt = self._open()
        ids = run.encode(prompt)
        if len(ids) == 0:
            raise ValueError("prompt: expected at least one character, got an empty text. Give --prompt TEXT.")
        room = self.max_new_tokens if self.beyond_context else run.config.context - len(ids)
        if room < 1:
            raise ValueError(
                f"prompt: expected fewer tokens than the context of {run.config.context}, got {len(ids)}. Shorten it."
            )
        fail_unless(
            self.min_new_tokens is None or bool(run.stop_tokens),
            f"min_new_tokens: expected a model with stop tokens, as it only holds them back, got {self.min_new_tokens} "
            "for one without. Leave it out.",
        )
        model, _ = run.load(self.step)
        if isinstance(model, models.TransformerLM):
            model = models.unroll_layers(model)
        sampler = decoding.sampler(*transforms, *report.tokenizer_ids_only(run))
        if self.beams is not None:
            self._search(model, run, prompt, min(self.max_new_tokens, room), samples)
            return
        for sample in range(samples):
            if samples > 1:
                print_line(f"--- sample {sample + 1}")
            show = _Stream(prompt, self.raw)
            generation = decoding.generate(
                model,
                ids,
                max_new_tokens=min(self.max_new_tokens, room),
                sampler=sampler,
                rng=None if self.greedy else jax.random.fold_in(jax.random.key(self.seed or 0), sample),
                stop_tokens=run.stop_tokens,
                stop_strings=self.stop,
                tokenizer=run.tokenizer,
                skip_special_tokens=self.skip_special_tokens,
                stream=show,
                beyond_context=self.beyond_context,
            )
            show.finish()
            _check_finite(generation.logprobs)
            if self.max_new_tokens > room and not bool(generation.stopped):
                _print_context_full(run.config)

    def _open(self) -> tuple[Any, str]:
        """The opened folder, and the text to continue."""
        fail_unless(
            (self.prompt, self.source) != (None, None),
            "prompt: expected a text to continue, got none. Give --prompt TEXT.",
        )
        fail_unless(
            (self.prompt, self.source) != ("-", "-"),
            "prompt, source: expected one of them from standard input, got both. Give one as a text.",
        )
        prompt, source = (_read_standard_input() if x == "-" else x for x in (self.prompt, self.source))
        if source is not None:
            return encoder_decoder.open_with_source(self.folder, source), prompt or ""
        return run_folder.open_model(self.folder, self.code.modules), prompt

    def _check_beams(self, samples: int) -> None:
        if self.beams is None:
            if self.length_penalty is not None:
                raise ValueError(
                    f"length_penalty: expected --beams with it, got {self.length_penalty} alone. Give --beams 4."
                )
            return
        check_int("beams", self.beams, 1, "It is the number of beams.")
        defaults = {field.name: field.default for field in fields(self)}
        ignored = ["--" + name.replace("_", "-") for name in SAMPLING_OPTIONS if getattr(self, name) != defaults[name]]
        if ignored:
            raise ValueError(
                f"beams: expected no {' and no '.join(ignored)} with it, as beam search does not sample and reads the "
                f"text only at the end, got beams = {self.beams}. Leave one of them out."
            )
        if samples > self.beams:
            raise ValueError(f"num_samples: expected at most beams = {self.beams}, got {samples}. Raise --beams.")

    def _search(self, model: Any, run: run_folder.Run, prompt: str, count: int, samples: int) -> None:
        """Print the best texts of beam search, with their scores if more than one."""
        options = dict(
            num_beams=self.beams,
            max_new_tokens=count,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            num_return=samples,
            transforms=[*self._transforms(PENALTIES), *report.tokenizer_ids_only(run)],
            stop_tokens=run.stop_tokens,
            tokenizer=run.tokenizer,
            skip_special_tokens=self.skip_special_tokens,
            beyond_context=self.beyond_context,
        )
        result = decoding.beam_search(model, run.encode(prompt), **options)
        _check_finite(result.scores)
        for sample, (text, score) in enumerate(zip(result.text, result.scores, strict=True)):
            if samples > 1:
                print_line(f"--- sample {sample + 1}, score {float(score):.4f}")
            print_text(f"{prompt}{text}\n", raw=self.raw)
        if self.max_new_tokens > count and not bool(result.stopped.all()):
            _print_context_full(model.config)

    def logit_transforms(self) -> list[decoding.LogitTransform]:
        """The logit transforms that the options describe; they are checked before anything is loaded."""
        names = ("temperature", "top_k", "top_p", "min_p")
        transforms = self._transforms((*PENALTIES, *names))
        if self.greedy:
            ignored = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]
            fail_unless(
                not ignored,
                f"greedy: expected no {' and no '.join(ignored)} with it, as it always takes the likeliest token. "
                "Leave one of them out.",
            )
            transforms = [decoding.greedy(), *transforms]
        elif all(getattr(self, name) is None for name in ("repetition_penalty", *names)):
            transforms = [*transforms, decoding.temperature(0.8)]
        decoding.sampler(*transforms)  # raises for a wrong combination
        return transforms

    def _transforms(self, names: tuple[str, ...]) -> list[decoding.LogitTransform]:
        """The logit transforms of those options that are given."""
        return [_logit_transform(name, getattr(self, name)) for name in names if getattr(self, name) is not None]


def _logit_transform(name: str, x: Any) -> decoding.LogitTransform:
    """A logit transform by name; errors name the option, and not the argument of the function."""
    try:
        return getattr(decoding, name)(x)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{name}: {str(error).partition(': ')[2]}") from None


def _check_finite(logprobs: jax.Array) -> None:
    if bool(jnp.isnan(logprobs).any()):
        raise ValueError(
            "folder: expected a model that gives every token a probability, got NaN. Its weights are broken: take an "
            "earlier checkpoint by --step, or download the weights again."
        )


def _print_context_full(config: models.LMConfig) -> None:
    cure = "" if config.position == "learned" else "; --beyond-context goes on"
    print_error(f"stopped at the model's context of {config.context} tokens{cure}")


def _read_standard_input() -> str:
    fail_unless(
        sys.stdin is not None, "prompt: expected a standard input for -, got a closed one. Give the text as an option."
    )
    return sys.stdin.read()


class _Stream:
    """Printer of a text while it is generated; the prompt comes with the first chunk, after all checks."""

    def __init__(self, prompt: str, raw: bool):
        self.unprinted, self.raw = prompt, raw

    def __call__(self, chunk: decoding.StreamChunk) -> None:
        print_text(self.unprinted + (chunk.text or ""), raw=self.raw)
        self.unprinted = ""

    def finish(self) -> None:
        """Print what is left, and end the line."""
        print_text(self.unprinted + "\n", raw=self.raw)
