"""A run trusts only its own files: checkpoints of its id and step, its tokens, one writer, no half-made folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jax_attention.cli import run_folder
from jax_attention.cli.__main__ import main
from jax_attention.core.files import new_folder
from jax_attention.core.fingerprints import BLOCK_BYTES, fingerprint, sample
from jax_attention.core.folder_lock import FolderLock
from tests.cli.quick_run import QUICK, error_of


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "copy")


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A run of the same shapes with another text."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    text = folder.parent / "pack.txt"
    text.write_text("pack my box with five dozen liquor jugs xyz.\n" * 60, encoding="utf-8")
    assert main(["train", str(text), "--out", str(folder), *QUICK]) == 0
    return folder


def resume(folder):
    return ["train", "--out", str(folder), "--resume"]


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


# --- Checkpoints -----------------------------------------------------------------------------------------------------


def test_the_checkpoint_of_another_run_is_refused(copy, other, capsys):
    """The shapes are the same; before, it was restored without a word."""
    shutil.rmtree(copy / "checkpoints" / "6")
    shutil.copytree(other / "checkpoints" / "6", copy / "checkpoints" / "6")
    ids = [run_folder.open_run(folder).identity["id"] for folder in (copy, other)]
    for command in (resume(copy), ["evaluate", str(copy), "--step", "6"]):
        error = error_of(command, capsys)
        assert f"expected one of run {ids[0]}, got one of run '{ids[1]}'" in error
    assert (copy / "checkpoints" / "6").is_dir()


def test_a_checkpoint_under_the_name_of_another_step_is_refused(copy, capsys):
    (copy / "checkpoints" / "6").rename(copy / "checkpoints" / "5")
    assert "expected that of step 5, got that of step 6: the folder was renamed" in error_of(resume(copy), capsys)


@pytest.mark.parametrize("what", ["data", "metadata", "no metadata"])
def test_a_damaged_newest_checkpoint_is_replaced(run, copy, what, capsys):
    """The run goes on from the one before, says so, and ends at the numbers of the undisturbed run."""
    newest = copy / "checkpoints" / "6"
    if what == "no metadata":
        (newest / "_CHECKPOINT_METADATA").unlink()
    else:
        damage(largest_file(newest) if what == "data" else newest / "_CHECKPOINT_METADATA")
    assert main(resume(copy)) == 0
    printed = capsys.readouterr().out
    assert f"checkpoint {newest}: expected " in printed
    assert f"resuming {copy} at step 3 of 6" in printed
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["3", "6"]
    results = [(folder / "results.json").read_text(encoding="utf-8") for folder in (run, copy)]
    assert results[0] == results[1]


def test_nothing_is_moved_if_every_checkpoint_is_damaged(copy, capsys):
    for step in (3, 6):
        damage(largest_file(copy / "checkpoints" / str(step)))
    assert "No other checkpoint can be restored either." in error_of(resume(copy), capsys)
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["3", "6"]


def test_a_folder_that_vanishes_stops_the_run_at_the_next_save(copy, monkeypatch, capsys):
    from jax_attention.cli import train

    def vanish(*args):
        (copy / "checkpoints").rename(copy / "gone")
        return None

    shutil.rmtree(copy / "checkpoints" / "6")
    monkeypatch.setattr(train, "_sampler", vanish)
    assert "which was there when this run started, got none: it was deleted" in error_of(resume(copy), capsys)


# --- Data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train", "validation"])
def test_tokens_of_another_run_are_refused(copy, other, name, capsys):
    file = f"corpus/{name}.tokens"
    shutil.copyfile(other / file, copy / file)
    for command in (resume(copy), ["evaluate", str(copy)]):
        assert f"expected the tokens that it was started with in '{copy / file}'" in error_of(command, capsys)


def test_a_sample_of_blocks_finds_other_files_but_not_every_byte(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(200 * BLOCK_BYTES))
    whole, few = fingerprint(path), sample(path)
    assert few == {name: whole[name] for name in ("bytes", "blocks")}
    path.write_bytes(bytes(BLOCK_BYTES) + b"\1" + bytes(199 * BLOCK_BYTES - 1))
    assert sample(path) == few  # between two blocks
    assert fingerprint(path) != whole
    path.write_bytes(b"\1" + bytes(200 * BLOCK_BYTES - 1))
    assert sample(path) != few
    path.write_bytes(bytes(200 * BLOCK_BYTES - 1) + b"\1")
    assert sample(path) != few


def test_verify_reads_everything(copy, capsys):
    assert main(["verify", str(copy)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "file\tresult"
    tokens = copy / "corpus" / "train.tokens"
    content = bytearray(tokens.read_bytes())
    content[len(content) // 2] ^= 1
    tokens.write_bytes(content)
    damage(largest_file(copy / "checkpoints" / "3"))
    assert main(["verify", str(copy)]) == 1
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines()[1:])
    assert lines["corpus/train.tokens"] == "not the file that the run was started with"
    assert "damaged" in lines["checkpoints/3"]
    assert [name for name, result in lines.items() if result == "ok"] == [
        "config.json",
        "tokenizer",
        "corpus/validation.tokens",
        "corpus/corpus.json",
        "checkpoints/6",
    ]
    (copy / "checkpoints" / "6" / "_CHECKPOINT_METADATA").unlink()
    assert main(["verify", str(copy)]) == 1
    assert "checkpoints/6\tfolder: expected a complete checkpoint of step 6" in capsys.readouterr().out


def test_byte_counts_of_another_run_are_refused(copy, capsys):
    """Bits per byte are computed with them."""
    path = copy / "corpus" / "corpus.json"
    path.write_text(path.read_text(encoding="utf-8").replace("269", "970"), encoding="utf-8")
    assert "expected the tokens that it was started with in" in error_of(["evaluate", str(copy)], capsys)


@pytest.mark.parametrize(("part", "name", "x"), [("model", "norm_epsilon", 0.5), ("settings", "z_loss", 0.5)])
def test_an_edited_config_is_refused(copy, capsys, part, name, x):
    path = copy / "config.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    contents[part][name] = x
    path.write_text(json.dumps(contents), encoding="utf-8")
    for command in (["evaluate", str(copy)], ["verify", str(copy)], resume(copy)):
        assert f"got an edited part '{part}'" in error_of(command, capsys)


def test_settings_that_changed_with_an_option_are_no_edit(copy):
    assert main([*resume(copy), "--learning-rate", "0.001"]) == 0
    assert main(["verify", str(copy)]) == 0


@pytest.mark.parametrize("name", ["lock", "metrics.jsonl", "checkpoints", "corpus/train.tokens", "tokenizer"])
def test_links_out_of_a_run_folder_are_refused(copy, tmp_path, name, capsys):
    """A run writes to its files: a link in a folder from elsewhere could replace any file of the user."""
    outside = tmp_path / "outside"
    (copy / name).rename(outside)
    (copy / name).symlink_to(outside)
    before = outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*"))
    for command in (resume(copy), ["evaluate", str(copy)]):
        assert f"got '{copy / name}', a link out of the folder" in error_of(command, capsys)
    assert (outside.read_bytes() if outside.is_file() else sorted(outside.rglob("*"))) == before


def test_other_links_of_the_user_are_left_alone(copy, tmp_path):
    (copy / "notes").symlink_to(tmp_path)
    assert main(resume(copy)) == 0


@pytest.mark.parametrize("name", ["metrics.jsonl", "corpus/train.tokens", "checkpoints/6/_CHECKPOINT_METADATA"])
def test_a_pipe_in_a_run_folder_is_refused(copy, name, capsys):
    """Reading it would wait for ever."""
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert "which is neither. Remove it" in error_of(["verify", str(copy)], capsys)


def test_damaged_metrics_are_refused_before_anything_changes(copy, capsys):
    (copy / "metrics.jsonl").write_bytes(b"[" * 100_000 + b"\n")
    before = (copy / "config.json").read_bytes()
    assert "expected a JSON object with a kind and a step" in error_of([*resume(copy), "--steps", "9"], capsys)
    assert (copy / "config.json").read_bytes() == before


def test_an_unreadable_checkpoint_is_not_damaged(copy, monkeypatch, capsys):
    """Root may read everything, so the error is made here, for one file."""
    import errno

    metadata, real_open = copy / "checkpoints" / "6" / "_CHECKPOINT_METADATA", os.open
    metadata.write_text("{")

    def refuse(path, *arguments, **options):
        if str(path) == str(metadata):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    error = error_of(resume(copy), capsys)
    assert "_CHECKPOINT_METADATA" in error
    assert "expected permission to read or write it, got none" in error
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["3", "6"]


# --- One writer, one beginning ---------------------------------------------------------------------------------------


def test_a_second_process_is_refused_before_it_changes_anything(copy, capsys):
    script = "import sys, pathlib; from jax_attention.core.folder_lock import FolderLock\n"
    script += "lock = FolderLock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        error = error_of(resume(copy), capsys)
        assert f"expected one that no other process writes to, got '{copy}', which process {holder.pid} on " in error
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
        holder.kill()
    assert main(resume(copy)) == 0  # the kernel released the lock


def test_a_folder_appears_whole_and_leftovers_are_removed(tmp_path):
    leftover, of_another_run, mine = (
        tmp_path / name for name in (".run.1.0123abcd.partial", ".tiny-2026.1.0123abcd.partial", ".run.mine.partial")
    )
    for path in (leftover, of_another_run, mine):
        path.mkdir()
        (path / "lock").touch()
    live = tmp_path / ".run.2.0123abcd.partial"
    live.mkdir()
    with FolderLock(live):
        with pytest.raises(FileNotFoundError), new_folder(tmp_path / "run") as folder:
            shutil.copyfile(tmp_path / "none", folder / "file")
        assert sorted(path.name for path in tmp_path.iterdir()) == [".run.2.0123abcd.partial", ".run.mine.partial"]
        with new_folder(tmp_path / "run") as folder:
            (folder / "file").write_text("x")
            assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "file").read_text() == "x"
    with pytest.raises(FileExistsError, match="another process filled"), new_folder(tmp_path / "run"):
        pass


def test_where_files_cannot_be_locked_no_leftover_is_removed(tmp_path, monkeypatch):
    """It may be of a process that is filling it."""
    import errno
    import fcntl

    def unsupported(file, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    leftover = tmp_path / ".run.1.0123abcd.partial"
    leftover.mkdir()
    (leftover / "lock").touch()
    with new_folder(tmp_path / "run") as folder:
        (folder / "file").write_text("x")
    assert leftover.is_dir()


def test_where_files_cannot_be_locked_the_run_goes_on_and_says_so(copy, monkeypatch, capsys):
    import errno
    import fcntl

    def unsupported(file, how):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert main(resume(copy)) == 0
    assert "no lock    the file system of" in capsys.readouterr().out


# --- Runs from before identities -------------------------------------------------------------------------------------


def test_a_run_without_identity_gets_one_after_the_checks_that_its_files_allow(copy, other, capsys):
    path = copy / "config.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    old_id = contents.pop("run")["id"]
    path.write_text(json.dumps(contents), encoding="utf-8")
    for step in (3, 6):  # checkpoints as earlier versions wrote them, without a run
        metadata = copy / "checkpoints" / str(step) / "_CHECKPOINT_METADATA"
        saved = json.loads(metadata.read_text(encoding="utf-8"))
        del saved["custom_metadata"]["run"], saved["custom_metadata"]["crc32"]
        metadata.write_text(json.dumps(saved), encoding="utf-8")
    assert main(resume(copy)) == 0
    printed = capsys.readouterr().out
    identity = run_folder.open_run(copy).identity
    assert printed.count("run of an earlier version") == 1
    assert (identity["adopted"], identity["id"] != old_id) == ([3, 6], True)
    assert main(resume(copy)) == 0
    assert "run of an earlier version" not in capsys.readouterr().out
    tokens = copy / "corpus" / "train.tokens"
    shutil.copyfile(other / "corpus" / "train.tokens", tokens)
    assert "expected the tokens that it was started with" in error_of(resume(copy), capsys)


def test_an_identity_that_only_the_config_lost_is_found_in_the_checkpoints(copy):
    path = copy / "config.json"
    contents = json.loads(path.read_text(encoding="utf-8"))
    old_id = contents.pop("run")["id"]
    path.write_text(json.dumps(contents), encoding="utf-8")
    assert main(resume(copy)) == 0
    assert run_folder.open_run(copy).identity["id"] == old_id


@pytest.mark.parametrize("kind", ["link to an empty folder", "current folder"])
def test_folders_that_are_made_elsewhere_or_not_at_all(tmp_path, monkeypatch, kind):
    """A link is followed; the current folder cannot be replaced under the process."""
    target = tmp_path / "target"
    target.mkdir()
    if kind == "current folder":
        monkeypatch.chdir(target)
        with pytest.raises(OSError, match="the current folder or the root of a disk"), new_folder(Path()):
            pass
        return
    (tmp_path / "link").symlink_to(target)
    with new_folder(tmp_path / "link") as folder:
        (folder / "file").write_text("x")
    assert (target / "file").read_text() == "x"
