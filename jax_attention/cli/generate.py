"""`jax-attention generate`: continue a prompt, streaming."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from jax_attention import decoding, models
from jax_attention.cli import report, run_folder
from jax_attention.cli.output import print_line
from jax_attention.core.checks import check_int

NOT_BESIDE_BEAMS = ("greedy", "temperature", "top_k", "top_p", "min_p", "stop", "seed")


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Continue a prompt with the model of a folder; text appears as it is made.

    Args:
        folder: of a run, of a Hugging Face model, or of adapters as PEFT saves them.
        prompt: the text to continue; - reads standard input.
        step: which checkpoint of a run; the best one seen in validation if None.
        max_new_tokens: at most.
        greedy: always the likeliest token; takes no sampling option.
        beams: beam search over so many texts at once, which prints the likeliest when it is done; takes no sampling
            option but the repetition penalty, and --num-samples is how many of the texts to print.
        length_penalty: a finished beam scores its log-probability over its length to this power, 1 if nothing is said;
            only with --beams.
        temperature: above 1 bolder, below 1 safer; 0.8 if nothing is said.
        top_k: only the k likeliest tokens.
        top_p: the likeliest tokens that together have this probability.
        min_p: tokens with at least this share of the likeliest one's probability.
        repetition_penalty: above 1 makes tokens that occurred less likely.
        num_samples: how many continuations; one if None.
        stop: texts that end a continuation.
        seed: of the random numbers; 0 if None.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    prompt: str
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
    num_samples: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def run(self) -> None:
        """Load, continue, print."""
        transforms, samples = self.transforms(), 1 if self.num_samples is None else self.num_samples
        if self.greedy and (self.num_samples, self.seed) != (None, None):
            raise ValueError(
                "greedy: expected no --num-samples and no --seed beside it, as it always makes the same text, got "
                f"num_samples = {self.num_samples}, seed = {self.seed}. Leave them out."
            )
        check_int("num_samples", samples, 1, "It is the number of continuations.")
        self._check_beams(samples)
        run = run_folder.open_model(self.folder)
        prompt = sys.stdin.read() if self.prompt == "-" else self.prompt
        ids = run.tokenizer.encode(prompt)
        if len(ids) == 0:
            raise ValueError("prompt: expected at least one character, got an empty text. Give --prompt TEXT.")
        room = run.config.context - len(ids)
        if room < 1:
            raise ValueError(
                f"prompt: expected fewer tokens than the context of {run.config.context}, got {len(ids)}. Shorten it."
            )
        model = models.unroll_layers(run.load(self.step)[0])
        sampler = decoding.sampler(*transforms, *report.only_spelled(run))
        if self.beams is not None:
            self._search(model, run, prompt, min(self.max_new_tokens, room), samples)
            return
        for sample in range(samples):
            if samples > 1:
                print_line(f"--- sample {sample + 1}")
            sys.stdout.write(prompt)
            made = decoding.generate(
                model,
                ids,
                max_new_tokens=min(self.max_new_tokens, room),
                sampler=sampler,
                rng=None if self.greedy else jax.random.fold_in(jax.random.key(self.seed or 0), sample),
                stop_tokens=run.stop_tokens,
                stop_strings=self.stop,
                tokenizer=run.tokenizer,
                stream=_write,
            )
            print_line()
            _check_finite(made.logprobs)
            if self.max_new_tokens > room and not bool(made.stopped):
                _say_full(run.config.context)

    def _check_beams(self, samples: int) -> None:
        if self.beams is None:
            if self.length_penalty is not None:
                raise ValueError(
                    f"length_penalty: expected --beams beside it, got {self.length_penalty} alone. Give --beams 4."
                )
            return
        check_int("beams", self.beams, 1, "It is the number of texts to look at.")
        defaults = {field.name: field.default for field in fields(self)}
        given = ["--" + name.replace("_", "-") for name in NOT_BESIDE_BEAMS if getattr(self, name) != defaults[name]]
        if given:
            raise ValueError(
                f"beams: expected no {' and no '.join(given)} beside it, as nothing is drawn and the text is looked at "
                f"only in the end, got beams = {self.beams}. Leave one of them out."
            )
        if samples > self.beams:
            raise ValueError(f"num_samples: expected at most beams = {self.beams}, got {samples}. Raise --beams.")

    def _search(self, model: Any, run: run_folder.Run, prompt: str, count: int, samples: int) -> None:
        """Print the best texts of beam search, with their scores if there are several."""
        penalty = self.repetition_penalty
        transforms = [] if penalty is None else [decoding.repetition_penalty(penalty)]
        options = dict(
            num_beams=self.beams,
            max_new_tokens=count,
            length_penalty=1.0 if self.length_penalty is None else self.length_penalty,
            num_return=samples,
            transforms=[*transforms, *report.only_spelled(run)],
            stop_tokens=run.stop_tokens,
            tokenizer=run.tokenizer,
        )
        found = decoding.beam_search(model, run.tokenizer.encode(prompt), **options)
        _check_finite(found.scores)
        for sample, (text, score) in enumerate(zip(found.text, found.scores, strict=True)):
            if samples > 1:
                print_line(f"--- sample {sample + 1}, score {float(score):.4f}")
            print_line(prompt + text)
        if self.max_new_tokens > count and not bool(found.stopped.all()):
            _say_full(model.config.context)

    def transforms(self) -> list[decoding.LogitTransform]:
        """The logit transforms of the options; `greedy` refuses those that it would ignore."""
        names = ("repetition_penalty", "temperature", "top_k", "top_p", "min_p")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        transforms = [getattr(decoding, name)(x) for name, x in given.items()]
        if self.greedy:
            transforms = [decoding.greedy(), *transforms]
        elif not given:
            transforms = [decoding.temperature(0.8)]
        decoding.sampler(*transforms)  # which checks them before anything is loaded
        return transforms


def _check_finite(logprobs: jax.Array) -> None:
    if bool(jnp.isnan(logprobs).any()):
        raise ValueError(
            "folder: expected a model that gives every token a probability, got NaN. Its weights are broken: take an "
            "earlier checkpoint by --step, or the weights again from where they came."
        )


def _say_full(context: int) -> None:
    sys.stderr.write(f"stopped at the model's context of {context} tokens\n")


def _write(piece: decoding.StreamChunk) -> None:
    sys.stdout.write(piece.text or "")
    sys.stdout.flush()
