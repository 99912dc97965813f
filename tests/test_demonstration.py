"""`moeopt demo`: everything it promises, from the packaged trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import moeopt as mo
from moeopt import demonstration
from moeopt.demonstration import METHODS, demonstrate


def follow(text: str, total: int) -> Callable[[], None]:
    return lambda: None


@pytest.mark.slow
def test_the_demonstration_is_proved_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = mo.sample().layers([1, 3])  # the same steps in a quarter of the time
    monkeypatch.setattr(demonstration, "sample", lambda: brief)
    folder = tmp_path / "new" / "folder"
    answer, show = demonstrate(folder, workers=1, follow=follow)
    assert answer["summary"]["status"] == "certified-optimal"
    assert answer["verified"] is True
    assert [row["method"] for row in answer["comparison"]] == list(METHODS)
    assert {Path(path).name for path in answer["files"].values()} == {path.name for path in folder.iterdir()}
    assert mo.verify(folder / "certificate.json", folder / "trace.parquet").accepted
    placement = mo.read_placement(folder / "placement.json")
    assert mo.evaluate(placement, brief).fan_out == pytest.approx(answer["summary"]["fan_out"])
    assert "physical_to_logical_map" in json.loads((folder / "sglang.json").read_text())
    assert "Certificate verified" in " ".join(str(item) for item in show())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file/folder: cannot be made: Not a directory"):
        demonstrate(tmp_path / "file" / "folder", workers=1, follow=follow)
