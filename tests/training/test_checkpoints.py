"""Checkpoints restore the same bits, incomplete ones are never read, none is overwritten, and errors are clear."""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from orbax.checkpoint import v1 as orbax

from jax_attention.training.checkpoint_folder import delete
from jax_attention.training.checkpoints import Checkpoints
from tests.support.arrays import normal
from tests.support.bigram import assert_same_bits
from tests.support.tiers import slow_except

LINEAR = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
STATE = {
    "model": LINEAR,
    "optimizer": optax.adamw(1e-3).init(LINEAR),
    "step": jnp.array(7, jnp.int32),
    # orbax/issues/1105, flax/issues/4383: typed random keys of dropout could not be saved.
    "rng": jax.random.key(3),
    "rngs": jax.random.split(jax.random.key(4, impl="rbg"), 2),
    "half": jnp.array([1.5, -0.0, jnp.nan], jnp.bfloat16),
    "flags": jnp.array([True, False]),
    "nothing": jnp.zeros((0, 3)),
    "host": np.arange(3, dtype=np.int8),
}
SMALL = {"w": jnp.arange(3.0)}


def save_steps(folder, steps=(10, 20), state=SMALL, **options):
    checkpoints = Checkpoints(folder, **options)
    for step in steps:
        checkpoints.save(step, state)
    return checkpoints


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- The same bits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_round_trip_is_bitwise(tmp_path, abstract):
    save_steps(tmp_path, [7], STATE).wait()
    like = jax.eval_shape(lambda: STATE) if abstract else STATE
    restored = Checkpoints(tmp_path).restore(like=like)
    assert_same_bits(restored, STATE)
    assert isinstance(restored["model"], nnx.Linear)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))


def test_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    big = jnp.arange(300_000.0)
    expected = np.array(big)
    checkpoints = save_steps(tmp_path, [1], {"w": big})
    jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(big).block_until_ready()
    np.testing.assert_array_equal(checkpoints.restore(like={"w": jnp.zeros(300_000)})["w"], expected)


def test_a_part_is_restored_into_a_module_or_a_dictionary(tmp_path):
    checkpoints = save_steps(tmp_path, [7], STATE)
    assert_same_bits(checkpoints.restore(like=LINEAR, part="model"), LINEAR)
    plain = checkpoints.restore(like={"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2)}, part="model")
    np.testing.assert_array_equal(plain["kernel"], LINEAR.kernel[...])


def test_metrics_and_extra_are_saved_with_the_arrays(tmp_path):
    Checkpoints(tmp_path).save(
        5, SMALL, metrics={"loss": jnp.float32(1.5)}, extra={"vocab": [1, {"a": "é"}]}, wait=True
    )
    saved = Checkpoints(tmp_path).read()
    assert (saved["step"], saved["metrics"], saved["extra"]) == (5, {"loss": 1.5}, {"vocab": [1, {"a": "é"}]})
    assert saved["leaves"]["w"]["is"] == "float32[3]"


# --- Checkpoints that are kept ---------------------------------------------------------------------------------------


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, best="loss")
    history = []
    for step, loss in ((1, 3.0), (2, 1.0), (3, math.nan), (4, 1.0), (5, None), (6, 2.0), (7, 0.5), (8, 0.7)):
        checkpoints.save(step, SMALL, metrics={} if loss is None else {"loss": loss})
        history.append((checkpoints.steps, checkpoints.latest, checkpoints.best))
    assert [best for *_, best in history] == [1, 2, 2, 4, 4, 4, 7, 7]
    assert [steps for steps, *_ in history] == [[1], [1, 2], [2, 3], [3, 4], [4, 5], [4, 5, 6], [6, 7], [7, 8]]
    assert [latest for _, latest, _ in history] == list(range(1, 9))
    assert Checkpoints(tmp_path).best == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8"]


def test_without_a_metric_only_the_newest_are_kept(tmp_path):
    assert save_steps(tmp_path, (1, 2, 3), keep=1, best=None).steps == [3]


def test_nothing_is_overwritten(tmp_path):
    checkpoints = save_steps(tmp_path)
    checkpoints.wait()
    (tmp_path / "30").mkdir()
    before = files(tmp_path)
    for step in (10, 20, 30):
        with pytest.raises(FileExistsError, match=rf"step: expected a step that is not saved yet, got {step}"):
            checkpoints.save(step, {"w": jnp.zeros(3)})
    assert files(tmp_path) == before


# --- Incomplete, damaged, from another program -----------------------------------------------------------------------

KILLED = """
import os, pathlib, signal, sys
import numpy as np
from jax_attention.training.checkpoint_folder import delete
from jax_attention.training.checkpoints import Checkpoints

checkpoints = Checkpoints(sys.argv[1], keep=1, best=None)
checkpoints.save(1, {"w": np.ones(3, np.float32)}, wait=True)
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
os.rename = os.replace = kill  # a save ends with a renamed folder: it must not end while this process waits
checkpoints.save(2, {"w": np.random.default_rng(0).integers(0, 255, 2**24).astype(np.uint8)})
while not any(path.is_file() for path in pathlib.Path(sys.argv[1]).glob("2.*/state/**/*")):
    pass
kill()
"""


def test_a_kill_in_the_middle_of_a_save_leaves_the_earlier_checkpoint(tmp_path):
    finished = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == -signal.SIGKILL, finished.stderr[-2000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2.orbax-checkpoint-tmp"], (
        "the kill did not come in the middle of the save"
    )
    checkpoints = Checkpoints(tmp_path, keep=1, best=None)
    assert checkpoints.steps == [1]
    np.testing.assert_array_equal(checkpoints.restore(like=SMALL)["w"], [1, 1, 1])
    checkpoints.save(2, SMALL)
    assert checkpoints.steps == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["2"]


def test_incomplete_folders_are_never_read(tmp_path):
    save_steps(tmp_path).wait()
    # An interrupted copy, an Orbax folder under its temporary name, an interrupted deletion, other files.
    (tmp_path / "30").mkdir()
    shutil.copytree(tmp_path / "20" / "state", tmp_path / "40" / "state")
    shutil.copytree(tmp_path / "20", tmp_path / "50.orbax-checkpoint-tmp")
    shutil.copytree(tmp_path / "20", tmp_path / "5.deleted")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert (checkpoints.steps, checkpoints.latest) == ([10, 20], 20)
    checkpoints.restore(like=SMALL)
    with pytest.raises(FileNotFoundError, match=r"a complete checkpoint of step 30 in .*, got the steps \[10, 20\]"):
        checkpoints.restore(30, like=SMALL)
    checkpoints.save(60, SMALL, wait=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["20", "30", "40", "60", "notes.txt"]


def test_clean_up_finishes_the_deletion_that_a_kill_interrupted(tmp_path):
    """Killed after the last save of a run: nothing is saved any more, and the old checkpoint would stay for ever."""
    checkpoints = Checkpoints(tmp_path, keep=3, best=None)
    for step in (2, 4, 6):
        checkpoints.save(step, STATE, wait=True)
    (tmp_path / "0.deleted").mkdir()
    after_the_kill = Checkpoints(tmp_path, keep=2, best=None)
    after_the_kill.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.deleted", "2", "4", "6"]
    after_the_kill.clean_up()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4", "6"]
    Checkpoints(tmp_path / "nothing").clean_up()


def test_an_interrupted_deletion_leaves_no_incomplete_checkpoint(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def delete_one_file(path, *args, **options):
        next(file for file in Path(path).rglob("*") if file.is_file()).unlink()
        raise Killed

    checkpoints = save_steps(tmp_path, (1, 2), keep=1)
    monkeypatch.setattr("shutil.rmtree", delete_one_file)
    with pytest.raises(Killed):
        checkpoints.wait()
    assert Checkpoints(tmp_path).steps == [2]
    assert (tmp_path / "1.deleted").is_dir()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "flipped bit": (flip_a_bit, "expected checksum .* of w, got .*damaged"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:100]), "expected files as Orbax wrote them, got "),
    "deleted": (Path.unlink, "expected files as Orbax wrote them, got "),
}


@pytest.mark.parametrize("kind", slow_except(("flipped bit", "deleted"), DAMAGE))
def test_damaged_files_are_reported_with_a_cure(tmp_path, kind):
    state = {"w": normal(0, 5000)}
    checkpoints = save_steps(tmp_path, state=state)
    checkpoints.wait()
    damage, message = DAMAGE[kind]
    damage(largest_file(tmp_path / "20"))
    with pytest.raises(ValueError, match=f"checkpoint .*/20: {message}"):
        checkpoints.restore(like=state)
    assert_same_bits(checkpoints.restore(10, like=state), state)


def test_damaged_metadata_and_checkpoints_of_other_programs_are_refused(tmp_path):
    save_steps(tmp_path / "a").wait()
    (tmp_path / "a" / "20" / "_CHECKPOINT_METADATA").write_text('{"item_hand')
    with pytest.raises(ValueError, match=r"/20: expected one written by jax_attention .*Other steps here: \[10\]"):
        Checkpoints(tmp_path / "a").restore(like=SMALL)
    orbax.save(tmp_path / "b" / "3", {"w": np.ones(3, np.float32)}, custom_metadata={"by": "someone"})
    before = files(tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"expected one written by jax_attention .*another program.*There is no other here"
    ):
        Checkpoints(tmp_path / "b").restore(like=SMALL)
    assert files(tmp_path / "b") == before


@pytest.mark.parametrize("moment", ["metadata", "load"])
def test_a_checkpoint_that_another_process_deletes_meanwhile_is_gone_and_not_damaged(tmp_path, monkeypatch, moment):
    save_steps(tmp_path, (10, 20)).wait()
    read = getattr(orbax, moment)

    def delete_then_read(path, *args, **options):
        delete(tmp_path, 10)
        return read(path, *args, **options)

    monkeypatch.setattr(orbax, moment, delete_then_read)
    with pytest.raises(FileNotFoundError, match=r"/10 to stay while it is read, got none. Now there are \[20\]"):
        Checkpoints(tmp_path).restore(10, like=SMALL)


def test_the_best_is_chosen_without_a_checkpoint_that_is_deleted_meanwhile(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    for step, loss in ((10, 1.0), (20, 2.0)):
        checkpoints.save(step, SMALL, metrics={"loss": loss}, wait=True)
    read = orbax.metadata
    monkeypatch.setattr(orbax, "metadata", lambda path: (path.name == "10" and delete(tmp_path, 10), read(path))[1])
    assert Checkpoints(tmp_path).best == 20


# --- Errors ----------------------------------------------------------------------------------------------------------


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected a complete checkpoint in .*/none, got none\. Give the"):
        Checkpoints(tmp_path / "none").restore(like=SMALL)
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"got none \(the folder holds thesis.tex\)"):
        Checkpoints(tmp_path).restore(like=SMALL)
    assert (Checkpoints(tmp_path).steps, Checkpoints(tmp_path).latest, Checkpoints(tmp_path).best) == ([], None, None)


def test_differences_are_listed_by_name(tmp_path):
    checkpoints = save_steps(tmp_path, [1], STATE)
    like = {**STATE, "half": jnp.zeros(4), "more": jnp.zeros(2), "rng": jax.random.key(0, impl="rbg")}
    del like["flags"]
    with pytest.raises(ValueError, match="like: expected a checkpoint with the leaves of the example") as error:
        checkpoints.restore(like=like)
    assert str(error.value).split("\n")[1:-1] == [
        "  half: expected float32[4], got bfloat16[3]",
        "  more: expected float32[2], got nothing",
        "  rng: expected key<rbg>[], got key<fry>[]",
        "  flags: expected nothing, got bool[2]",
    ]
    with pytest.raises(ValueError, match=r"(?s)9 differences.* and 4 more"):
        checkpoints.restore(like={**STATE, **{f"x{i}": jnp.zeros(1) for i in range(9)}})


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda c: c.save(1, {"a": 3}), TypeError, "state: expected arrays only, got int 3 at a"),
        (lambda c: c.save(1, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}), ValueError, "different names"),
        (lambda c: c.save(1, SMALL, extra={"x": jnp.ones(1)}), TypeError, "extra: expected data that JSON can hold"),
        (lambda c: c.save(-1, SMALL), ValueError, "step: expected an int >= 0, got -1"),
        (lambda c: Checkpoints(c.folder, keep=0), ValueError, "keep: expected an int >= 1, got 0"),
    ],
)
def test_wrong_calls(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(Checkpoints(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_without_orbax_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'jax_attention\[train\]'"):
        Checkpoints(tmp_path).save(1, SMALL)
