"""Whoever listens hears every better placement and bound, from this process and from workers."""

from __future__ import annotations

import pytest

import moeopt as mo
from moeopt.news import News, heard, tell
from moeopt.parallel import processes
from moeopt.samples import sample
from moeopt.terminal import told


def problem() -> mo.Problem:
    return mo.Problem.from_trace(sample("tiny-moe"), mo.Cluster.of(gpus=4, slots=8))


@pytest.mark.parametrize("workers", [1, 2])
def test_layers_tell_their_costs_and_bounds_while_they_run(workers: int) -> None:
    recorded: list[News] = []
    with processes(workers) as executor:
        result = mo.solve(problem(), "auto", executor=executor, on_news=recorded.append)
    for part in result.layers:
        own = [news for news in recorded if news.layer_id == part.layer_id]
        costs = [news.cost for news in own if news.cost is not None]
        bounds = [news.bound for news in own if news.bound is not None]
        assert min(costs) == part.cost
        assert bounds
        assert part.bound is not None
        assert max(bounds) <= part.bound


def test_a_listener_hears_nothing_afterwards() -> None:
    recorded: list[News] = []
    with heard(recorded.append):
        tell(News(3, 0.5, 10, None))
    tell(News(3, 0.6, 9, None))
    assert recorded == [News(3, 0.5, 10, None)]


@pytest.mark.parametrize(
    ("news", "text"),
    [
        (News(3, 0.5, 10_000, None), "layer 3: cost 10,000"),
        (News(3, 0.5, None, 9_000), "layer 3: bound 9,000"),
        (News(3, 0.5, 10_000, 9_000), "layer 3: cost 10,000, bound 9,000 (10.00 %)"),
        (News(3, 0.5, 0, 0), "layer 3: cost 0, bound 0 (0.00 %)"),
    ],
)
def test_the_command_line_says_it_in_a_few_words(news: News, text: str) -> None:
    assert told(news) == text
