"""The script that renames users' code, its table in the changelog, and the names of version 0.1."""

from __future__ import annotations

import re

import jax_attention
from jax_attention import rename
from tests.house.sources import ROOT
from tests.house.test_public_names import PUBLIC

V0_1 = (ROOT / "tests" / "fixtures" / "v0_1" / "public_names.txt").read_text(encoding="utf-8").split()
"""All public names of version 0.1."""

CODE = '''
from jax_attention import data as d, decoding, models, viz
import jax_attention as ja
from jax_attention.training import Fitted, pair_loss as loss

def build(config: models.PairConfig) -> Fitted:  # größer
    """`models.Body` in prose stays."""
    layer = ja.nn.MultiHeadAttention(2, 8, extra_key=True)
    body = models.Body(config, extra_key=True)
    decoding.beam_search(model, rules=(), log=f"{rules}")
    ja.attend(q, k, v, implementation="linear_time")
    ja.data.tasks.recall(rng)
    body.remember(states, mode="linear_time")
    return Fitted(viz.strip(" strip "), text.strip(), d.padded(rows), loss)
'''
RENAMED = '''
from jax_attention import data as d, decoding, models, viz
import jax_attention as ja
from jax_attention.training import FitResult, seq2seq_loss as loss

def build(config: models.EncoderDecoderConfig) -> FitResult:  # größer
    """`models.Body` in prose stays."""
    layer = ja.nn.MultiHeadAttention(2, 8, bias_kv=True)
    body = models.TransformerStack(config, extra_key=True)
    decoding.beam_search(model, transforms=(), log=f"{rules}")
    ja.attend(q, k, v, implementation="linear_attention")
    ja.data.tasks.recall(rng)
    body.project_memory(states, mode="linear_time")
    return FitResult(viz.text_heatmap(" strip "), text.strip(), d.pad_rows(rows), loss)
'''


def test_code_is_renamed_where_names_come_from_the_library():
    assert rename.rename(CODE) == (RENAMED, [])
    assert rename.rename(RENAMED) == (RENAMED, [])


def test_code_without_the_library_stays():
    other = CODE.replace("jax_attention", "another_library")
    assert rename.rename(other) == (other, [])


def test_names_that_left_are_reported(tmp_path, capsys):
    file = tmp_path / "user.py"
    code = "from jax_attention import data, training\ndata.Pairs, data.Grammar\ntraining.bootstrap(losses)\n"
    file.write_text(code, encoding="utf-8")
    assert rename.main([str(file)]) == 1
    assert file.read_text(encoding="utf-8") == code.replace("Pairs", "Seq2SeqBatches")
    printed = capsys.readouterr().err
    assert "line 2: data.Grammar has left the library; use experiments.corpora" in printed
    assert "line 3: training.bootstrap has left the library; use training.t_interval" in printed


def public(path: str) -> bool:
    folder, _, name = path.rpartition(".")
    return name in PUBLIC[f"jax_attention.{folder}".rstrip(".")].split()


def test_every_name_of_version_0_1_has_a_place():
    kept = [name for name in V0_1 if name not in rename.REMOVED]
    assert [name for name in kept if not public(rename.NAMES.get(name, name))] == []
    assert set(rename.NAMES) | set(rename.REMOVED) <= set(V0_1)


def test_there_is_no_alias():
    assert [name for name in [*rename.NAMES, *rename.REMOVED] if public(name)] == []


def test_table_of_the_changelog_is_that_of_the_script():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## 0.1.0")[0]
    rows = dict(re.findall(r"^\| `?(.+?)`? \| `?(.+?)`? \|$", text, re.M))
    expected = {"0.1": "0.2", **rename.NAMES, **rename.REMOVED}
    expected |= {f".{old}(...)": f".{new}(...)" for old, new in rename.METHODS.items()}
    expected |= {f"{call}({old}=)": f"{call}({new}=)" for (call, old), new in rename.KEYWORDS.items()}
    expected |= {f'{key}="{old}"': f'{key}="{new}"' for (key, old), new in rename.STRINGS.items()}
    assert rows == expected
    assert jax_attention.__version__ == "0.2.0"
