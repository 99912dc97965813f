"""What the documents show, works."""

import re
from pathlib import Path

import pytest

import moeopt as mo
from moeopt import registry
from moeopt.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    brief = mo.sample().layers([1, 3])  # the same calls in a quarter of the time
    monkeypatch.setattr(mo, "sample", lambda: brief)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, object] = {"__name__": "readme"}
    exec("\n".join(blocks), names)
    assert (tmp_path / "placement.json").exists()
    assert names["result"].status == "certified-optimal"  # type: ignore[attr-defined]


def test_every_verb_is_in_the_readme_and_every_verb_there_exists() -> None:
    shown = set(re.findall(r"^moeopt ([\w-]+)", README, re.MULTILINE)) | {"demo"}
    verbs = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    } | {group.name for group in app.registered_groups}
    assert shown == verbs


def test_every_method_is_in_the_readme() -> None:
    table = README[README.index("## Methods") : README.index("## Does it last?")]
    assert {method.name for method in registry.all_methods()} <= set(re.findall(r"`([\w-]+)`", table))


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "formulations/README.md", "benchmarks/README.md"]
)
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_every_formulation_has_its_section() -> None:
    page = (ROOT / "formulations" / "README.md").read_text(encoding="utf-8")
    models = {
        path.stem.replace("_", "-")
        for path in (ROOT / "formulations" / "moeopt_formulations").glob("[a-z]*.py")
    }
    assert models <= set(re.findall(r"^## ([\w-]+)$", page, re.MULTILINE))
