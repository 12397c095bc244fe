from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

from stream.kafka.topic_plan import plan_topics

COMPOSE = yaml.safe_load((Path(__file__).parents[4] / "compose.yaml").read_text())
POM = (Path(__file__).parents[4] / "scripts" / "kafka" / "pom.xml").read_text()


def test_only_this_machine_reaches_it() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_it_is_the_kafka_that_the_tests_run() -> None:
    version = re.search(r"kafka_2\.13</artifactId>\s*<version>([\d.]+)<", POM)
    assert version is not None
    images = {service["image"] for service in COMPOSE["services"].values()}
    assert images == {f"apache/kafka:{version[1]}"}


def test_its_topics_are_made_as_the_command_makes_them() -> None:
    script = COMPOSE["services"]["topics"]["command"][0].replace("\\\n", " ").replace("$$TOPIC", "faces")
    shared = re.search(r"--create --if-not-exists(.*)\"\$\$@\"", script)
    assert shared is not None
    found = {}
    for line in re.findall(r"^make (--.*)$", script, re.MULTILINE):
        words = shlex.split(shared[1] + line)
        options = [(words[i], words[i + 1]) for i in range(0, len(words), 2)]
        settings = dict(value.split("=", 1) for name, value in options if name == "--config")
        rest = dict(option for option in options if option[0] != "--config")
        found[rest["--topic"]] = (rest["--partitions"], rest["--replication-factor"], settings)
    expected = {plan.name: (str(plan.partitions), "1", plan.settings(1)) for plan in plan_topics("faces")}
    assert found == expected
