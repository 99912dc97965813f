"""Joint groups are no worse than the two steps, and unseen requests find their experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moeopt.expert_groups import AtHome
from moeopt.joint_batches import JointBatches
from moeopt.micro_batches import MicroBatches
from moeopt.node_volumes import between_nodes
from moeopt.openings import Openings
from moeopt.samples import sample
from tests.batch_strategies import family_trace


@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize("room", [0.0, 0.5])
def test_families_with_experts_of_their_own_leave_nothing_remote(phases: int, room: float) -> None:
    trace = family_trace(families=4, requests=10, phases=phases)
    learned, held = trace.split(0.2, seed=1)
    groups = JointBatches(4, room=room).fit(learned, seed=0)
    assert between_nodes(groups.placement, held, ranks=groups.ranks(held)).remote == 0


def test_it_costs_no_more_than_the_two_steps_with_equal_groups() -> None:
    trace = sample("tiny-moe")
    served = Openings.of(trace).rest
    remote = []
    for fitted in (
        JointBatches(4, room=0.0).fit(trace, seed=0),
        MicroBatches(4, overflow="balanced").fit(trace, seed=0),
    ):
        local = AtHome(fitted.placement.hosts).gains(served)
        remote.append(served.sum() - local[np.arange(len(local)), fitted.request_group].sum())
        assert np.ptp(np.bincount(fitted.request_group, minlength=4)) <= 1
    assert remote[0] <= remote[1]


def test_copies_fill_every_group_and_save_activations() -> None:
    trace = family_trace(families=1, requests=12)
    bare = JointBatches(2).fit(trace, seed=0)
    more = JointBatches(2, replicas=4).fit(trace, seed=0)
    assert more.placement.hosts.sum(axis=1).tolist() == [[6, 6], [6, 6]]
    assert (
        between_nodes(more.placement, trace, ranks=more.ranks(trace)).remote
        < between_nodes(bare.placement, trace, ranks=bare.ranks(trace)).remote
    )


def test_the_same_seed_gives_the_same_groups_and_every_start_may_be_left_out() -> None:
    trace = family_trace(requests=5)
    for batches in (JointBatches(2), JointBatches(2, starts=0, rounds=1), JointBatches(8)):
        first, second = batches.fit(trace, seed=4), batches.fit(trace, seed=4)
        assert first.placement == second.placement
        assert (first.request_group == second.request_group).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("room", -0.1), ("room", float("nan")), ("starts", -1), ("rounds", 0), ("judged_by", "")],
)
def test_unknown_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        JointBatches(**{name: value})


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(ValueError, match="do not part into 3"):
        JointBatches(3).fit(family_trace(), seed=0)
    with pytest.raises(ValueError, match="groups must be at most the 2 requests, found 4"):
        JointBatches(4).fit(family_trace(requests=1), seed=0)
    with pytest.raises(ValueError, match="nothing is served"):
        JointBatches(2).fit(family_trace(tokens=1, phases=1), seed=0)


def test_a_room_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="room must be finite"):
        JointBatches(room=float("inf"))
