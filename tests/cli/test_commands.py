"""Every command, from text to pictures, on a tiny model."""

from __future__ import annotations

import io
import json
import re

import pytest

from jax_attention import training
from jax_attention.cli.__main__ import main
from tests.cli.quick_run import QUICK, TEXT, error_of


def test_train_leaves_a_complete_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "tokenizer", "checkpoints", "metrics.jsonl", "results.json", "attention.html"}
    assert names >= {"attention.png", "heads.png"}
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"unigram counts", "bigram counts", "this model"}
    assert all(0 < entry["bits_per_byte"] < 20 for entry in results.values())
    kinds = [entry["kind"] for entry in training.read_metrics(run / "metrics.jsonl")]
    assert kinds.count("evaluation") == 2


def test_generate_continues_and_repeats_itself_with_the_same_seed(run, capsys):
    outputs = []
    for seed in ("1", "1", "2"):
        assert main(["generate", str(run), "--prompt", "the ", "--max-new-tokens", "9", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]
    assert all(line.startswith("the ") and len(line) == len("the ") + 9 + 1 for line in outputs)


def test_generate_stops_at_the_context_with_a_message(run, capsys):
    assert main(["generate", str(run), "--prompt", "the quick", "--greedy"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out) == 16 + 1
    assert printed.err == "stopped at the model's context of 16 tokens; --beyond-context goes on\n"


@pytest.mark.parametrize("options", [["--greedy"], ["--beams", "2"]])
def test_generate_goes_on_beyond_the_context(run, capsys, options):
    command = ["generate", str(run), "--prompt", "the quick", "--max-new-tokens", "30", "--beyond-context", *options]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert (len(printed.out), printed.err) == (len("the quick") + 30 + 1, "")


def test_a_source_is_for_an_encoder_decoder(run, capsys):
    error = error_of(["generate", str(run), "--source", "the quick"], capsys)
    assert "--source: expected an encoder-decoder with it, got" in error
    assert "which reads one text. Give it as --prompt." in error


BEAMS = ["--prompt", "the ", "--max-new-tokens", "5", "--beams", "3"]


def best_two_beams(run, capsys):
    """The two texts of `--num-samples 2`, which are printed with their scores, the better one first."""
    assert main(["generate", str(run), *BEAMS, "--num-samples", "2"]) == 0
    best_head, best, second_head, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"--- sample 1, score -\d\.\d{4}", best_head)
    assert float(best_head.split()[-1]) >= float(second_head.split()[-1])
    assert all(text.startswith("the ") and len(text) == len("the ") + 5 for text in (best, second))
    assert best != second
    return best, second


def test_generate_by_beam_search_prints_scores(run, capsys):
    best_two_beams(run, capsys)


@pytest.mark.slow
def test_generate_by_beam_search_prints_the_best_of_its_beams(run, capsys):
    """The best text does not depend on `--num-samples`."""
    best, _ = best_two_beams(run, capsys)
    command = ["generate", str(run), *BEAMS]
    assert main([*command, "--repetition-penalty", "1.0"]) == 0
    assert capsys.readouterr().out == best + "\n"
    assert main([*command, "--max-new-tokens", "50"]) == 0
    printed = capsys.readouterr()
    assert len(printed.out) == 16 + 1
    assert "stopped at the model's context of 16 tokens" in printed.err


def test_generate_reads_standard_input(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the "))
    assert main(["generate", str(run), "--prompt", "-", "--greedy", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("the ")


def test_evaluate_repeats_the_loss_of_training(run, capsys):
    assert main(["evaluate", str(run), "--step", "6"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split("\t")
    result = json.loads((run / "results.json").read_text(encoding="utf-8"))["this model"]
    assert line[1] == "6"
    assert line[3:] == [f"{result['nats_per_token']:.4f}", f"{result['bits_per_byte']:.4f}"]


def test_evaluate_takes_other_text(run, text, capsys):
    assert main(["evaluate", str(run), "--files", str(text)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split("\t")[2] == str(len(TEXT) - 1)


def test_show_draws(run, tmp_path, capsys):
    assert main(["show", str(run), "--text", "the lazy dog", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.split()
    assert {path.name for path in tmp_path.iterdir()} == {"attention.html", "attention.png", "heads.png"}
    assert len(printed) == 3
    assert "lazy" not in (tmp_path / "attention.html").read_text(encoding="utf-8")[:200]


@pytest.mark.slow
def test_train_reads_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["train", "-", "--out", str(tmp_path / "out"), *QUICK, "--sample-tokens", "0"]) == 0
    assert main(["train", "--resume", "--out", str(tmp_path / "out")]) == 0


@pytest.mark.slow
def test_negative_weights_train_and_the_missing_picture_is_reported(text, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", str(text), "--out", str(out), *QUICK, "--normalize", "linear()"]) == 0
    assert "no heads.png: weights: expected no negative number" in capsys.readouterr().out
    assert (out / "results.json").exists()


@pytest.mark.slow
def test_unknown_characters_cost_bits(tmp_path, capsys):
    """A model that predicts 'unknown' everywhere must not look good: an escape costs 20 bits for 3 bytes."""
    path, unknown = tmp_path / "some.txt", tmp_path / "unknown.txt"
    path.write_text(TEXT + "天" * 9, encoding="utf-8")
    unknown.write_text("气" * 400, encoding="utf-8")
    out = tmp_path / "out"
    assert main(["train", str(path), "--out", str(out), *QUICK]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(out), "--files", str(unknown)]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split("\t")[4]) > 6.7


def test_rules_lists_the_catalogue_for_other_programs(capsys):
    assert main(["rules"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[:2] == ["part", "rule"]
    assert any(line.startswith("mask\tsliding_window\t") for line in lines)
    assert main(["rules", "soft_cap"]) == 0
    assert "cap * tanh(score / cap)" in capsys.readouterr().out
    assert "expected one of" in error_of(["rules", "nothing"], capsys)


def test_explain_reports(capsys):
    assert main(["explain", "--length", "32", "--mask", "causal() & sliding_window(8)", "--kv-heads", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("implementation: ")
    assert re.search(r"query: +float32\[1,32,8,64\]", printed)
    assert re.search(r"key: +float32\[1,32,2,64\]", printed)
