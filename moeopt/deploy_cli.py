"""The verb `deploy-notes`: what to serve with, so that an engine uses a placement."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from moeopt import flags
from moeopt.terminal import show


def deploy_notes(
    engine: Annotated[str, typer.Argument(help="sglang, vllm, tensorrt-llm, ... as in `moeopt export`.")],
    *,
    placement: Annotated[
        Path | None, typer.Option(help="Placement of `place`: its numbers are filled in.", show_default=False)
    ] = None,
    file: Annotated[
        str, typer.Option(help="What `moeopt export` wrote, as the server will see it.", show_default=False)
    ] = "",
    as_json: flags.AsJson = False,
) -> None:
    """Flags, variables and configuration to serve an exported placement with."""
    from dataclasses import asdict

    from moeopt import registry
    from moeopt.api import read_placement
    from moeopt.engine import Notes

    chosen = registry.named_engine(engine)
    placed = None if placement is None else read_placement(placement)
    path = file or f"exported{chosen.suffix}"
    try:
        found: Notes = chosen.notes(placed, path)
    except ValueError as error:
        raise ValueError(f"{engine if placement is None else placement}: {error}") from error
    answer = {"engine": engine, "file": path, **asdict(found)}
    if not as_json:
        typer.echo(_text(answer))  # no table's width breaks a line that is to be pasted
        return
    show(answer, list, as_json=True)


def _text(answer: dict[str, Any]) -> str:
    """Shell lines, the configuration and the remarks."""
    lines = [f"# {answer['engine']}: {answer['source']}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in answer["environment"].items()]
    if answer["command"]:
        # Words to fill stay as they are, unquoted.
        lines.append(" ".join(_word(word) for word in answer["command"]))
    if answer["config"]:
        lines += ["", answer["config"].rstrip()]
    lines += ["", *(f"- {remark}" for remark in answer["remarks"])]
    return "\n".join(lines)


def _word(word: str) -> str:
    return word if word.startswith("<") and word.endswith(">") else shlex.quote(word)
