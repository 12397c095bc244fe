"""``facestream events topics``: make the topics of a feed of events, or say how they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from stream.cli.errors import EXIT_FAILED, Debug, one_line_errors
from stream.console.terminal import open_console
from stream.kafka.topic_plan import PARTITIONS, RETENTION_S, TopicPlan, TopicState, differences, plan_topics

_TIMEOUT_S = 10.0
_DAY_S = 24 * 3600.0


def register(events_app: typer.Typer) -> None:
    """Add the command to ``facestream events``."""
    events_app.command("topics")(topics)


def topics(
    address: Annotated[
        str,
        typer.Argument(
            metavar="KAFKA",
            help="kafka://HOST:PORT/TOPIC[?identities=TOPIC]; ${NAME} is taken from the environment.",
        ),
    ],
    partitions: Annotated[
        int, typer.Option(min=1, max=10_000, help="Of each topic; as many consumers can share the work.")
    ] = PARTITIONS,
    retention: Annotated[
        float, typer.Option(metavar="DAYS", min=0.001, help="How long records are kept.")
    ] = RETENTION_S / _DAY_S,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make nothing; say what is and what is not.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Make the topics of a feed of events: TOPIC, TOPIC.tracks and that of identities=. What is there stays.

    Ends with 1 where a topic is missing, or is not as it is to be.
    """
    with one_line_errors(debug=debug):
        from stream.kafka.address import parse_kafka
        from stream.kafka.topic_admin import ensure_topic, topic_states

        kafka = parse_kafka(address, environment=os.environ)
        plans = plan_topics(
            kafka.topic,
            identities=kafka.identities,
            partitions=partitions,
            retention_s=retention * _DAY_S,
        )
        brokers, before = topic_states(kafka, plans, _TIMEOUT_S)
        after = before
        if not dry_run and None in before:
            for plan in plans:
                ensure_topic(kafka, _TIMEOUT_S, plan=plan)
            _, after = topic_states(kafka, plans, _TIMEOUT_S, awaited=True)
        complaints = [_complaint(plan, state, brokers) for plan, state in zip(plans, after, strict=True)]
        made = [old is None and new is not None for old, new in zip(before, after, strict=True)]
        open_console().print(_table(plans, after, made, complaints))
        if any(complaints):
            typer.echo("docs/kafka.md says how to change a topic", err=True)
            raise typer.Exit(EXIT_FAILED)


def _complaint(plan: TopicPlan, state: TopicState | None, brokers: int) -> str:
    """What is not as planned; empty where all is."""
    return "missing" if state is None else "; ".join(differences(plan, state, brokers=brokers))


def _table(
    plans: Sequence[TopicPlan],
    states: Sequence[TopicState | None],
    made: Sequence[bool],
    complaints: Sequence[str],
) -> Table:
    table = Table()
    for heading in ("topic", "state", "partitions", "copies", "keeps", "differs"):
        table.add_column(heading, overflow="fold")
    for plan, state, is_new, complaint in zip(plans, states, made, complaints, strict=True):
        if state is None:
            table.add_row(plan.name, "missing", "", "", "", "")
        else:
            now = "made" if is_new else "there"
            numbers = (str(state.partitions), str(state.replicas))
            table.add_row(plan.name, now, *numbers, _keeps(state), complaint)
    return table


def _keeps(state: TopicState) -> str:
    """What a topic keeps, and how long, for people."""
    policies = state.settings.get("cleanup.policy", "").split(",")
    latest = "the latest of each key" if "compact" in policies else "all"
    milliseconds = float(state.settings.get("retention.ms", "nan"))
    if "delete" not in policies or milliseconds < 0:
        return f"{latest}, for good"
    return f"{latest}, {milliseconds / 1000 / _DAY_S:g} days"
