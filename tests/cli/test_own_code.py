"""Rules of the user's own on the command line: by --rules FILE.py, in the config of the run by name, never unasked."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from jax_attention.cli import own_code, run_folder
from jax_attention.cli.__main__ import main
from jax_attention.masks import UserMask
from tests.cli.quick_run import QUICK, error_of

RULES = """
import jax
import jax.numpy as jnp
from pathlib import Path
from jax_attention.core.numerics import per_tile
from jax_attention.core.struct import array_field, struct
from jax_attention.mods import Mod

Path(__file__).with_name("it_ran").touch()


@struct
class PowerDecay(Mod):
    rate: float = array_field()

    def __call__(self, scores, q_pos, k_pos):
        distance = jnp.maximum(q_pos - k_pos, 0).astype(scores.dtype)
        return scores - per_tile(self.rate) * jnp.log1p(distance)


def near(q_pos, k_pos):
    return (k_pos <= q_pos) & (q_pos - k_pos < 5)
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules_of_a_user.py"
    path.write_text(RULES, encoding="utf-8")
    yield path
    sys.modules.pop(path.stem, None)
    own_code.load_rules.cache_clear()


@pytest.fixture
def own_run(text, tmp_path, rules):
    out = tmp_path / "run"
    options = [*QUICK, "--mods", "PowerDecay(0.5)", "--mask", "near", "--sample-tokens", "0", "--rules", str(rules)]
    assert main(["train", str(text), "--out", str(out), *options]) == 0
    return out


def forget(rules):
    """As in a new process, which has not run the file."""
    del sys.modules[rules.stem]
    own_code.load_rules.cache_clear()
    rules.with_name("it_ran").unlink()


def test_a_run_with_rules_of_its_own_is_trained_and_used(own_run, rules, capsys):
    model = json.loads((own_run / "config.json").read_text(encoding="utf-8"))["model"]
    assert model["mods"] == [{"value": "rules_of_a_user:PowerDecay", "fields": {"rate": 0.5}}]
    assert model["mask"]["function"] == "rules_of_a_user:near"
    for command in (["evaluate", own_run], ["generate", own_run, "--prompt", "the", "--max-new-tokens", "3"]):
        assert main([*map(str, command), "--rules", str(rules)]) == 0
    assert main(["train", "--resume", "--out", str(own_run), "--rules", str(rules)]) == 0
    config = run_folder.open_run(own_run, (rules.stem,)).config
    assert isinstance(config.mask, UserMask)
    assert repr(config.mods[0]) == "power_decay(rate=0.5)"


def test_nothing_of_a_run_folder_is_run_unasked(own_run, rules, monkeypatch, capsys):
    forget(rules)
    monkeypatch.syspath_prepend(str(rules.parent))
    for command in (["evaluate", str(own_run)], ["verify", str(own_run)], ["train", "--resume", "--out", str(own_run)]):
        error = error_of(command, capsys)
        assert "code of the module rules_of_a_user, which is not allowed to run" in error
        assert "If you trust it: --allow-code rules_of_a_user, or --rules with its file." in error
    assert not rules.with_name("it_ran").exists()
    assert main(["evaluate", str(own_run), "--allow-code", "rules_of_a_user"]) == 0
    assert rules.with_name("it_ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("json.py", "", "expected a name that no installed module has"),
        ("my rules.py", "", "expected a Python file whose name is that of a module"),
        ("broken_rules.py", "1 / 0", "expected a file that runs, got ZeroDivisionError"),
    ],
)
def test_files_that_are_no_rules(tmp_path, name, content, message, capsys):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert message in error_of(["explain", "--rules", str(path), "--mask", "causal()"], capsys)


def test_explain_takes_rules(rules, capsys):
    assert main(["explain", "--length", "64", "--mask", "near", "--rules", str(rules)]) == 0
    assert "implementation: " in capsys.readouterr().out


def test_a_folder_named_like_an_allowed_module_is_not_enough(own_run, rules, capsys):
    """The names must be the same, or begin with the allowed one and a dot."""
    forget(rules)
    shutil.copyfile(rules, rules.with_name("rules_of.py"))
    assert "not allowed to run" in error_of(["evaluate", str(own_run), "--allow-code", "rules_of"], capsys)
