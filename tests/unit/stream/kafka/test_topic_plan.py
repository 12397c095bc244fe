from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.topic_plan import TopicPlan, TopicState, differences, plan_of, plan_topics, replicas

WEEK_MS = str(7 * 24 * 3600 * 1000)


def test_the_topics_of_a_feed_have_as_many_partitions() -> None:
    plans = plan_topics("faces", identities="names", partitions=6)
    assert [plan.name for plan in plans] == ["faces", "faces.tracks", "names"]
    assert {plan.partitions for plan in plans} == {6}
    assert plan_topics("faces", partitions=6) == plans[:2]


def test_events_are_kept_for_a_week_and_of_tracks_the_latest_state() -> None:
    events, tracks = plan_topics("faces")
    assert events.settings(1) == {"cleanup.policy": "delete", "retention.ms": WEEK_MS}
    assert tracks.settings(1) == {
        "cleanup.policy": "compact,delete",
        "retention.ms": WEEK_MS,
        "max.compaction.lag.ms": "3600000",
    }


def test_a_topic_that_is_made_on_its_own_is_as_the_feed_has_it() -> None:
    assert tuple(plan_of(plan.name) for plan in plan_topics("faces")) == plan_topics("faces")


def test_what_is_kept_for_good() -> None:
    assert TopicPlan("t", retention_s=None).settings(1) == {"cleanup.policy": "delete", "retention.ms": "-1"}
    assert TopicPlan("t", retention_s=None, compacted=True).settings(1)["cleanup.policy"] == "compact"


@pytest.mark.parametrize(
    ("brokers", "copies", "in_sync"), [(1, 1, None), (2, 2, None), (3, 3, "2"), (9, 3, "2")]
)
def test_copies(brokers: int, copies: int, in_sync: str | None) -> None:
    assert replicas(brokers) == copies
    assert TopicPlan("t").settings(brokers).get("min.insync.replicas") == in_sync


@given(st.integers(1, 9), st.booleans(), st.none() | st.floats(0.001, 1e9))
def test_a_topic_as_planned_differs_in_nothing(
    brokers: int, compacted: bool, retention_s: float | None
) -> None:
    plan = TopicPlan("t", 12, retention_s, compacted)
    state = TopicState("t", 12, replicas(brokers), plan.settings(brokers))
    assert differences(plan, state, brokers=brokers) == ()


def test_differences_say_what_was_found_and_expected() -> None:
    state = TopicState("t", 4, 1, {"cleanup.policy": "delete,compact", "retention.ms": "1000"})
    found = differences(TopicPlan("t", compacted=True), state, brokers=3)
    assert found == (
        "partitions 4, expected 12",
        "replicas 1, expected 3",
        f"retention.ms 1000, expected {WEEK_MS}",
        "max.compaction.lag.ms not known, expected 3600000",
        "min.insync.replicas not known, expected 2",
    )


def test_plans_that_make_no_sense() -> None:
    for partitions, retention_s in ((0, 1.0), (1, 0.0), (1, -1.0)):
        with pytest.raises(ValueError, match="above 0"):
            TopicPlan("t", partitions, retention_s)
