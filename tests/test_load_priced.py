"""Load-priced serving: the cheapest GPUs of every token while loads are even, others when they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.load_priced import LoadPriced
from moeopt.replay_rules import Cover
from tests.test_replay_rules import Served, answer, costs, served_layers

TWO = Cluster(1, 2, 2)
BOTH = np.ones((2, 2), bool)


@settings(max_examples=60, deadline=None)
@given(layer=served_layers(), history=st.sampled_from([1, 10]))
def test_without_a_price_every_token_costs_what_cover_costs(layer: Served, history: int) -> None:
    priced, cheapest = answer(LoadPriced(theta=1e9, history=history), layer), answer(Cover(), layer)
    assert costs(priced, layer[0]) == costs(cheapest, layer[0])


def test_tokens_of_one_expert_take_turns_when_loads_have_a_price() -> None:
    experts = np.zeros((40, 1), np.int32)
    rule = LoadPriced(width=0.01, history=10)
    served = rule.assign(
        experts,
        BOTH,
        primary=np.zeros(2, np.int32),
        cluster=TWO,
        source=np.zeros(40, np.int32),
        memory=rule.remember(BOTH, TWO),
    )
    assert np.bincount(served.ravel(), minlength=2).tolist() == [20, 20]


def test_a_pair_stays_together_until_the_load_is_dearer_than_a_hop() -> None:
    experts = np.tile(np.array([[0, 1]], np.int32), (30, 1))
    hosts = np.array([[True, True], [True, False]])

    def split(width: float) -> int:
        rule = LoadPriced(width=width, history=20, rho=1.0)
        served = rule.assign(
            experts,
            hosts,
            primary=np.zeros(2, np.int32),
            cluster=TWO,
            source=np.zeros(30, np.int32),
            memory=rule.remember(hosts, TWO),
        )
        return int((served[:, 0] != served[:, 1]).sum())

    assert split(1e6) == 0
    assert split(0.05) > split(0.5) > 0


def test_loads_decay_and_batches_are_counted() -> None:
    rule = LoadPriced(rho=0.5, batch=2, history=1)
    memory = rule.remember(BOTH, TWO)
    rule.assign(
        np.zeros((5, 1), np.int32),
        BOTH,
        primary=np.zeros(2, np.int32),
        cluster=TWO,
        source=np.zeros(5, np.int32),
        memory=memory,
    )
    # One activation at first; after the batches of 2, 2 and 1: ((1 / 2 + 2) / 2 + 2) + 1.
    assert memory[:2].sum() == pytest.approx(4.25)
    assert memory[-1] == 5


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"theta": -0.1}, "theta must not be negative"),
        ({"width": 0}, "width must be finite and above 0"),
        ({"rho": 1.5}, "rho must lie between 0 and 1"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"history": 0}, "history must be at least 1"),
    ],
)
def test_bad_settings_are_named(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        LoadPriced(**wrong)


def test_more_gpus_than_choose_together_are_served_one_by_one() -> None:
    hosts = np.zeros((2, 300), bool)
    hosts[0, :130], hosts[1, 130:270] = True, True
    experts = np.tile(np.array([[0, 1]], np.int32), (50, 1))
    rule, cluster = LoadPriced(), Cluster(1, 300, 2)
    served = rule.assign(
        experts,
        hosts,
        primary=np.array([0, 130], np.int32),
        cluster=cluster,
        source=np.zeros(50, np.int32),
        memory=rule.remember(hosts, cluster),
    )
    assert hosts[experts, served].all()
