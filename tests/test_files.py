"""Locks of folders, by which processes keep out of each other's way."""

import os
from pathlib import Path

import pytest

from robust_tf.files import is_locked, locked


def test_a_folder_of_another_user_counts_as_used(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("os.open", refuse)
    assert is_locked(tmp_path)


def test_a_folder_that_is_renamed_before_it_is_locked(tmp_path):
    open_, moved = os.open, []

    def opens(path, flags, **kwargs):
        if not moved:
            moved.append(Path(path).rename(tmp_path / "finished"))
        return open_(path, flags, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.open", opens)
        with locked(tmp_path / "run"):
            pass
    assert moved and (tmp_path / "run").is_dir()
