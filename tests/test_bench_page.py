"""The page of a sweep: one file, well formed, safe to open, sortable, with every number under its figure."""

from __future__ import annotations

import re
import shutil
import subprocess
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.bench_figures import Axis, Line, Mark, front_chart, placement_map, step_chart
from moeopt.bench_markdown import case_tables, markdown_of
from moeopt.bench_page import SCRIPT, page_of
from moeopt.bench_rows import Row
from moeopt.bench_solving import Question, tasks
from moeopt.stop import Stop
from tests.made_rows import failures, row, sweep
from tests.pages import checked

HEADINGS = [
    "Methods",
    "Who finds the least cost",
    "Gap over time",
    "What a saving costs",
    "Where experts went",
    "All runs",
]
HOSTILE = "</title></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'|`[a](b)\x00\u202e"


def headings(page: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<h2>(.*?)</h2>", page)]


def words(page: str) -> str:
    """The text of a page."""
    bare = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def test_a_page_is_one_well_formed_file() -> None:
    text = page_of(sweep())
    reader = checked(text, scripts=1)
    assert headings(text) == HEADINGS
    assert "prefers-color-scheme:dark" in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in reader.elements
    for word in ("nan", "None", "inf"):
        assert word not in words(text).split()


def test_a_browser_runs_the_script_of_the_page_and_no_other() -> None:
    policy = re.search(r'Security-Policy" content="([^"]+)"', page_of(sweep()))
    assert policy is not None
    digest = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    parts = ["default-src 'none'", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"]
    assert policy[1] == "; ".join(parts)


def test_every_figure_has_a_sentence_with_a_number_and_a_name_for_those_who_do_not_see_it() -> None:
    figures = re.findall(r"<figure.*?</figure>", page_of(sweep()), re.DOTALL)
    assert len(figures) == 1 + 2 + 1 + 2
    for figure in figures:
        svg, caption = (
            re.search(r"<svg.*?</svg>", figure),
            re.search(r"<figcaption>(.*?)</figcaption>", figure),
        )
        assert svg is not None
        assert caption is not None
        assert re.search(r"\d", caption[1])
        assert ElementTree.fromstring(svg[0]).get("aria-label")
        assert ElementTree.fromstring(svg[0]).get("role") == "img"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], ["Methods"]),
        (failures()[:3], ["Methods", "All runs", "What failed"]),
        (sweep(cases=1, methods=1, seeds=1)[:1], HEADINGS[:3]),
        (sweep(cases=1, methods=1, seeds=1)[-1:], ["Methods", "What a saving costs", "All runs"]),
        ([row("a", layer=0), row("a", layer=None, status="none-found")], ["Methods", "All runs"]),
        ([row("a", cost=0, reference=0.0, steps=[[0.0, 0, 0]], bound=0)], HEADINGS[:3]),
        ([row("a", cost=5, layer=None), *failures()], [*HEADINGS[:2], "All runs", "What failed"]),
    ],
    ids=["none", "failed", "layer", "whole", "no placement", "no cost", "mixed"],
)
def test_sections_that_rows_do_not_tell_are_left_out(rows: list[Row], found: list[str]) -> None:
    text = page_of(rows)
    checked(text, scripts=1)
    assert [one for one in headings(text) if one not in found] == []
    assert [one for one in found if one not in headings(text)] == []


def test_failures_are_told_once_with_their_reason_and_where() -> None:
    text = words(page_of(sweep() + failures()))
    assert text.count("killed: out of memory") == 3  # two runs in the table of runs, one reason
    assert "c, seed 0, 1" in text
    assert "costs 3, the result says 2" in text
    assert "3 runs failed or skipped" in text
    assert "c, seed 0, layer 4" in text


def test_several_machines_and_versions_are_named() -> None:
    rows = sweep()
    rows[0] = {**rows[0], "machine": {"cpu": "Other", "cores": 64}, "versions": {"python": "4"}}
    text = words(page_of(rows))
    assert "come from 2 machines: seconds do not compare" in text
    assert "Other, 64 cores (1 of 48 rows)" in text
    assert "made by 2 sets of versions" in text
    assert "machines:" not in words(page_of(sweep()))


def test_rows_about_the_same_are_counted_once() -> None:
    assert "48 rows were left out" in words(page_of(sweep() + sweep()))
    assert page_of(sweep() + sweep()).count("<circle") == page_of(sweep()).count("<circle")


def test_cases_have_tables_of_their_own_that_do_not_pool_what_ran_on_one_only() -> None:
    uneven = [one for one in sweep() if (one["case"], one["found"]["method"]) != ("case 1", "method 2")]
    page, text = page_of(uneven), markdown_of(uneven)
    tables = re.findall(r"<h3>(.*?)</h3>.*?<tbody>(.*?)</tbody>", page, re.DOTALL)
    assert [(case, body.count("<tr>")) for case, body in tables] == [("case 0", 3), ("case 1", 2)]
    parts = re.findall(r"\*\*(.*?)\*\*\n\n((?:\|.*\n)+)", text)
    assert [(case, table.count("\n") - 2) for case, table in parts] == [("case 0", 3), ("case 1", 2)]
    for one in (words(page), text):
        assert "geometric mean of the runs, shifted by 10 s" in one


def test_markdown_says_where_its_rows_come_from_and_what_not_to_compare() -> None:
    rows = sweep()
    text = markdown_of(rows)
    assert text.endswith("\n- Machine: x, 2 cores\n- Versions: python 3\n- Stop: 1 s a layer\n")
    assert "machines" not in text
    mixed = markdown_of([{**rows[0], "machine": {"cpu": "Other", "cores": 64}}, *rows[1:]])
    assert mixed.startswith("> These rows come from 2 machines: seconds do not compare between them.\n")
    assert "- Machine: Other, 64 cores (1 of 48 rows)\n- Machine: x, 2 cores (47 of 48 rows)\n" in mixed
    assert "machines" not in case_tables(rows)


def test_gaps_go_by_the_best_bound_or_say_that_there_is_none() -> None:
    assert "At the end: method 0 0.00 %" in words(page_of(sweep()))
    assert "verified bounds of all of 6 problems" in words(page_of(sweep()))
    without = [{**one, "found": {**one["found"], "bound": None}} for one in sweep()]
    assert "no verified bound of 6 problems: gaps are to the least cost" in words(page_of(without))


def test_many_experts_and_layers_stay_small_and_say_what_is_shown() -> None:
    hosts = [[expert % 32, (7 * expert + 3) % 32] for expert in range(256)]
    rows = [row("a", layer=layer, cost=5, hosts=hosts) for layer in range(3, 61)]
    rows.append(row("a", layer=None, cost=290, gpus=32, experts=256))
    text = page_of(rows)
    assert len(text) < 150_000
    assert "Shown: 16 of 58 layers, evenly spaced." in words(text)
    assert "14,848 copies" in words(text)
    assert "GPU 0, 8, 16, …" in words(text)
    huge = [row("a", layer=0, cost=5, hosts=hosts * 4), row("a", layer=None, cost=5, gpus=32)]
    assert "Shown: the first 512 of 1024 experts." in words(page_of(huge))


def test_more_methods_than_styles_and_more_cases_than_figures_are_drawn_as_far_as_they_go() -> None:
    text = page_of(sweep(cases=14, methods=26, seeds=1, layers=1))
    checked(text, scripts=1)
    assert words(text).count("The first 12 of 14 are shown.") == 2
    assert "method 25" in words(text)


def test_text_that_is_markup_is_shown_not_run() -> None:
    rows = [
        {
            **one,
            "case": HOSTILE,
            "method": HOSTILE,
            "reason": HOSTILE,
            "stop": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "machine": {"cpu": HOSTILE, "cores": HOSTILE},
            "found": {**one["found"], "method": HOSTILE, "status": HOSTILE, "model": HOSTILE},
        }
        for one in sweep(cases=1, methods=1) + failures()
    ]
    text = page_of(rows, title=HOSTILE)
    checked(text, scripts=1)
    assert text.count("<script>") == 1
    for word in ("<img", "\x00", "\u202e", "</title></style>"):
        assert word not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    table = markdown_of(rows)
    assert "<script" not in table
    assert "\\|\\`\\[a\\](b)··" in table


@settings(max_examples=15, deadline=None)
@given(st.text(), st.text(min_size=1), st.text())
def test_any_text_stays_text(case: str, method: str, reason: str) -> None:
    rows = [
        {**one, "case": case, "reason": reason, "found": {**one["found"], "method": method}}
        for one in sweep(cases=1, methods=1, seeds=1)
    ]
    checked(page_of(rows, title=case), scripts=1)
    lines = [line for line in markdown_of(rows).split("\n") if line.startswith("|")]
    assert len(lines) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line.replace("\\\\", ""))) for line in lines}) == 1


def test_markdown_has_a_line_a_method() -> None:
    lines = markdown_of(sweep()).splitlines()
    assert lines[0] == "**case 0**"
    assert lines[2].startswith("| method | runs | failed | proved |")
    assert lines[4] == "| method 0 | 2 | 0 | 6/6 | 100.0 % | 0.00 % | 0.5 | 40.0 % | – | 0.50 |"
    assert lines.index("**case 1**") == 8


def test_rows_of_a_real_sweep_fill_every_section() -> None:
    path = Path(mo.__file__).parent / "data" / "tiny-moe.parquet"
    question = Question(path, layers="0,3", options={"gpus": 4, "replicas": 4}, held_out=0.2)
    found = [
        one
        for task in tasks(question, ["linear", "eplb"], seeds=[0], stop=Stop(seconds=1))
        for one in task.measure(*task.arguments)
    ]
    text = page_of(found)
    checked(text, scripts=1)
    assert headings(text) == HEADINGS
    assert "tiny-moe, 4 GPUs x 9, replicas 4, layers 0,3, 20 % held out" in words(text)


@given(st.lists(st.tuples(st.floats(1e-3, 10), st.floats(0, 1)), min_size=1, max_size=6))
def test_steps_stand_where_their_values_are(points: list[tuple[float, float]]) -> None:
    points = sorted(points)
    x, y = Axis.decades("time", 1e-3, high=10.0, seconds=True), Axis.shares("share", [0.0, 1.0])
    svg = step_chart([Line(0, "a", points)], x=x, y=y, label="steps")
    (path,) = [one for one in ElementTree.fromstring(svg).iter("path") if one.get("class") == "m m0"]
    heights = [float(one) for one in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", path.get("d", ""))]
    assert heights[0] == pytest.approx(204 - 180 * points[0][1], abs=0.06)
    assert heights[-1] == pytest.approx(204 - 180 * points[-1][1], abs=0.06)
    assert all(24 <= height <= 204 for height in heights)


@given(st.floats(1e-6, 1e3), st.floats(1, 1e6))
def test_a_logarithmic_side_holds_its_values(low: float, ratio: float) -> None:
    axis = Axis.decades("time", low, high=low * ratio, seconds=True)
    assert axis.low <= low * (1 + 1e-6)
    assert low * ratio <= axis.high * (1 + 1e-6)
    assert 0 <= axis.at(low) <= axis.at(low * ratio) <= 1
    assert 2 <= len(axis.ticks) <= 7
    assert axis.at(0.0) == 0.0


@given(st.lists(st.floats(-1, 100), min_size=1, max_size=4), st.booleans())
def test_an_even_side_holds_its_values_between_different_numbers(values: list[float], percent: bool) -> None:
    axis = Axis.shares("gap", values, percent=percent)
    assert axis.low <= min(values) + 1e-6
    assert max(values) <= axis.high + 1e-6
    assert len({text for _, text in axis.ticks}) == len(axis.ticks) >= 2
    assert len(axis.ticks) <= 8


def test_points_of_a_front_are_filled_named_and_joined() -> None:
    marks = [
        Mark(0, "one", "a note", 0.1, 0.2, 4.0, True),
        Mark(0, "two", "a note", 0.3, 0.4, 4.0, True),
        Mark(0, "beaten", "a note", 0.4, 0.1, 4.0, False),
    ]
    axes = Axis.shares("x", [0.0, 0.5], percent=False), Axis.shares("y", [0.0, 0.5])
    root = ElementTree.fromstring(front_chart(marks, x=axes[0], y=axes[1], label="front"))
    assert sorted(one.get("class", "") for one in root.iter("circle")) == ["hollow k0", "s0", "s0"]
    assert [one.text for one in root.iter("text") if one.get("class") == "over"] == ["one", "two"]
    (join,) = [one.get("d", "") for one in root.iter("path") if one.get("class") == "join k0"]
    assert re.sub(r"[^MHV]", "", join) == "MHV"


def test_a_map_shows_every_place_once() -> None:
    hosts = {3: [[0], [1, 9], [2]], 5: [[1], [0], [0, 1, 2]]}
    root = ElementTree.fromstring(placement_map(hosts, label="map"))
    cells = {
        one.get("class"): one.get("d", "") for one in root.iter("path") if "cell" in one.get("class", "")
    }
    found = {
        (float(x), int(y), colour)
        for colour, path in cells.items()
        for x, y in re.findall(r"M([\d.]+) (\d+)h", path)
    }
    assert {(x, y, int(str(colour)[-1])) for x, y, colour in found} == {
        *((0.0, 0, 0), (1.0, 0, 1), (1.5, 0, 1), (2.0, 0, 2)),
        *((0.0, 1, 1), (1.0, 1, 0), (2.0, 1, 0), (2.333, 1, 1), (2.667, 1, 2)),
    }
    numbers = [one.text for one in root.iter("text") if one.get("class") == "mid on"]
    assert numbers == ["0", "1", "9", "2", "1", "0", "0", "1", "2"]


@cache
def chromium() -> str:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return path or pytest.skip("chromium is not installed")


def browsed(page: str, folder: Path) -> tuple[str, list[str]]:
    """The page as a browser has it in the end, and what its console says."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    switches = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
    ]
    switches += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
    switches += ["--enable-logging=stderr", "--v=0"]
    found = subprocess.run(
        [chromium(), *switches, path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    if not found.stdout.strip():
        pytest.skip(f"chromium shows no page here: {found.stderr[-200:]}")
    said = [line for line in found.stderr.splitlines() if "CONSOLE" in line or "Uncaught" in line]
    return found.stdout, said


def with_script(page: str, script: str, *, allowed: bool) -> str:
    """A copy of the page with another script, which its policy allows or not."""
    own = f"script-src 'sha256-{b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"
    assert own in page
    if allowed:
        page = page.replace(own, f"{own} 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'")
    return page.replace("</body>", f"<script>{script}</script></body>")


def column(page: str, at: int) -> list[str]:
    """Cells of the table of runs, from the top."""
    table = page[page.index("<h2>All runs</h2>") :]
    body = table[table.index("<tbody>") : table.index("</tbody>")]
    lines = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [unescape(re.findall(r"<td[^>]*>(.*?)</td>", line)[at]) for line in lines]


def test_a_browser_finds_nothing_wrong_and_makes_heads_buttons(tmp_path: Path) -> None:
    shown, said = browsed(page_of(sweep() + failures()), tmp_path)
    assert said == []
    assert shown.count('<button type="button">') == 9 + 3 * 10 + 6
    assert column(shown, 1) == column(page_of(sweep() + failures()), 1)


def test_a_click_on_a_head_sorts_and_another_turns_the_order_around(tmp_path: Path) -> None:
    page = page_of(sweep() + failures())
    click = (
        "const table = [...document.querySelectorAll('table.sortable')].at(-1);"
        "const at = (name) => [...table.tHead.rows[0].cells].find((cell) => cell.textContent === name);"
    )
    shown, said = browsed(with_script(page, click + "at('cost').firstChild.click();", allowed=True), tmp_path)
    assert said == []
    costs = column(shown, 4)
    known = [int(cost.replace(",", "")) for cost in costs if cost != "–"]
    assert known == sorted(known)
    assert len(set(known)) > 2
    assert costs[-3:] == ["–"] * 3  # runs without a cost come last
    assert shown.count('aria-sort="ascending"') == 1
    twice = "at('method').firstChild.click(); at('method').firstChild.click();"
    shown, said = browsed(with_script(page, click + twice, allowed=True), tmp_path)
    assert said == []
    methods = column(shown, 1)
    assert methods == sorted(methods, key=str.lower, reverse=True)
    assert 'aria-sort="descending"' in shown


def test_tables_of_methods_are_sorted_as_well(tmp_path: Path) -> None:
    click = (
        "const table = document.querySelector('.methods table');"
        "const at = (name) => [...table.tHead.rows[0].cells].find((cell) => cell.textContent === name);"
        "at('gap').firstChild.click(); at('gap').firstChild.click();"
    )
    shown, said = browsed(with_script(page_of(sweep()), click, allowed=True), tmp_path)
    assert said == []
    assert re.findall(r'<td class="word">(method \d)</td>', shown)[:3] == ["method 2", "method 1", "method 0"]


def test_a_script_that_is_not_the_page_s_own_is_refused(tmp_path: Path) -> None:
    shown, said = browsed(with_script(page_of(sweep()), "document.title = 'ran';", allowed=False), tmp_path)
    assert "<title>Sweep of methods</title>" in shown
    assert len(said) == 1
