"""Fixtures of the tests of experiments."""

import pytest
from projects import in_run, make_project


@pytest.fixture
def recording(tmp_path, monkeypatch):
    """Make a project the current folder, in a run that records, and return its root."""
    root = make_project(tmp_path / "project")
    monkeypatch.chdir(root)
    in_run(monkeypatch, recording=True)
    return root
