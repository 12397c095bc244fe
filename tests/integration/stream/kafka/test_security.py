from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from certificates import Authority
from kafka import TopicPartition
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka_server import KafkaServer
from real_time import in_real_time
from token_endpoint import Endpoint

from engine.errors import SinkError
from stream.events.kafka_record import to_binary
from stream.gallery.identification.decisions_topic import IdentityTopic
from stream.kafka.address import KafkaAddress, parse_kafka
from stream.kafka.clients import connect_consumer, connect_producer
from stream.kafka.kafka_python import close_producer
from stream.kafka.topic_admin import connect_admin, ensure_topic, probe_broker
from stream.kafka.topic_plan import plan_of

pytestmark = pytest.mark.kafka

WAIT_S = 60.0


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Not even where a program logs all that its libraries have to say."""
    caplog.set_level(logging.DEBUG)
    yield
    logged = " ".join(record.getMessage() for record in caplog.get_records("call"))
    for secret in ("-secret", "geheim", unsigned_token("", life_s=1.0)[:20]):
        assert secret not in logged


@pytest.fixture
def topic() -> str:
    return f"facestream-test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def servers(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Servers(kafka_home, tmp_path_factory)
    yield found
    found.stop()


class Servers:
    """One broker at a time, since each takes memory."""

    def __init__(self, home: Path, folders: pytest.TempPathFactory) -> None:
        self._home, self._folders = home, folders
        self._kind: tuple[str, ...] = ()
        self._server: KafkaServer | None = None
        self._broker = ""

    def open(self, *kind: str) -> tuple[str, Path]:
        """HOST:PORT of a broker whose door is kept like that, and its folder."""
        if kind != self._kind:
            self.stop()
            self._server = KafkaServer(self._home, self._folders.mktemp("kafka"))
            self._broker, self._kind = self._server.start("--security", *kind), kind
        assert self._server is not None
        return self._broker, self._server.folder

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


def there_and_back(address: KafkaAddress) -> None:
    """Write a record and read it."""
    producer = connect_producer(address, WAIT_S)
    producer.send(address.topic, value=b"a face").get(WAIT_S)
    close_producer(producer)
    consumer = connect_consumer(address, group=None, timeout_s=WAIT_S)
    try:
        consumer.assign(
            [TopicPartition(address.topic, n) for n in consumer.partitions_for_topic(address.topic)]
        )
        give_up_at = time.monotonic() + WAIT_S
        values: list[bytes] = []
        while not values and time.monotonic() < give_up_at:
            values = [record.value for batch in consumer.poll(500).values() for record in batch]
    finally:
        consumer.close(autocommit=False)
    assert set(values) == {b"a face"}


def refusal(address: str, *, within_s: float = WAIT_S) -> str:
    """What is said of an address that does not let us in; it is said in time, and holds no secret."""
    begun = time.monotonic()
    with pytest.raises(SinkError) as caught:
        connect_producer(parse_kafka(address), within_s)
    assert time.monotonic() - begun < within_s
    told = str(caught.value)
    assert "geheim" not in told
    assert "\n" not in told
    with pytest.raises(SinkError):
        probe_broker(address, timeout_s=within_s)
    return told


def test_tls(servers: Servers, topic: str) -> None:
    broker, folder = servers.open("tls")
    there_and_back(parse_kafka(f"kafka://{broker}/{topic}?ca={folder}/tls/ca.crt"))
    assert "signed by an unknown CA" in refusal(f"kafka://{broker}/{topic}?ca={folder}/tls/stranger-ca.crt")
    assert "signed by an unknown CA" in refusal(f"kafka://{broker}/{topic}?security=SSL")
    assert "it uses TLS; use security=SSL" in refusal(f"kafka://{broker}/{topic}")
    assert "does not require a login" in refusal(f"kafka://me:geheim@{broker}/{topic}?ca={folder}/tls/ca.crt")


def test_mutual_tls(servers: Servers, topic: str, tmp_path: Path) -> None:
    broker, folder = servers.open("mtls")
    tls = folder / "tls"
    address = f"kafka://{broker}/{topic}?ca={tls}/ca.crt"
    there_and_back(parse_kafka(f"{address}&cert={tls}/client.crt&key={tls}/client.key"))
    ours = Authority(tmp_path, existing=(tls / "ca.crt", tls / "ca.key"))
    cert_file, key_file = ours.issue("encrypted", password="geheim")
    there_and_back(parse_kafka(f"{address}&cert={cert_file}&key={key_file}&key_password=geheim"))
    assert "requires a client certificate" in refusal(address)
    cert_file, key_file = ours.issue("expired", ends_in_days=-1.0)
    assert "expired.crt: it expired at 20" in refusal(f"{address}&cert={cert_file}&key={key_file}")
    cert_file, key_file = Authority(tmp_path, "stranger").issue("guest")
    assert "refuses the client certificate" in refusal(f"{address}&cert={cert_file}&key={key_file}")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords(servers: Servers, topic: str, mechanism: str) -> None:
    broker, _ = servers.open("sasl", *RIGHTS)
    options = f"security=SASL_PLAINTEXT&mechanism={mechanism}"
    there_and_back(parse_kafka(f"kafka://admin:admin-secret@{broker}/{topic}?{options}"))
    for login in ("admin:geheim", "nobody:geheim"):
        told = refusal(f"kafka://{login}@{broker}/{topic}?{options}")
        assert f"refuse the user name or the password ({mechanism}); correct them" in told
    assert "it requires a login (" in refusal(f"kafka://{broker}/{topic}")
    assert "it does not use TLS; use security=SASL_PLAINTEXT" in refusal(
        f"kafka://me:geheim@{broker}/{topic}"
    )


RIGHTS = (
    *("--set", "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
    *("--set", "super.users=User:admin;User:ANONYMOUS"),
)


def grant(admin: KafkaAddress, user: str, right: ACLOperation) -> None:
    """Give a right, and wait until the broker has heard of it."""
    pattern = ResourcePattern(ResourceType.TOPIC, admin.topic)
    acl = ACL(f"User:{user}", "*", right, ACLPermissionType.ALLOW, pattern)
    with closing(connect_admin(admin, WAIT_S)) as client:
        client.create_acls([acl])
        give_up_at = time.monotonic() + WAIT_S
        while acl not in client.describe_acls(acl)[0]:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)


def test_rights(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("sasl", *RIGHTS)
    end = f"{broker}/{topic}?security=SASL_PLAINTEXT&mechanism=PLAIN"
    admin, producer = (parse_kafka(f"kafka://{name}:{name}-secret@{end}") for name in ("admin", "producer"))
    address = f"kafka://producer:producer-secret@{end}"
    assert f"the user producer lacks permission for the topic {topic}" in refusal(address)
    there_and_back(admin)
    assert f"the user producer lacks permission for the topic {topic}" in refusal(address)
    grant(admin, "producer", ACLOperation.READ)
    assert "the user producer lacks permission to WRITE the topic; grant it" in refusal(address)
    connect_consumer(producer, group=None, timeout_s=WAIT_S).close(autocommit=False)
    with pytest.raises(SinkError, match="lacks permission to WRITE the topic"):
        IdentityTopic(producer, to_binary, stopping=threading.Event()).connect()
    grant(admin, "producer", ACLOperation.WRITE)
    there_and_back(producer)
    assert not ensure_topic(producer, WAIT_S)
    with pytest.raises(SinkError, match=f"the user producer lacks permission for the topic {topic}.tracks"):
        ensure_topic(producer, WAIT_S, plan=plan_of(f"{topic}.tracks"))
    grant(replace(admin, topic=f"{topic}.tracks"), "producer", ACLOperation.DESCRIBE)
    with pytest.raises(
        SinkError, match=rf"there is no topic {topic}\.tracks, and no permission to create it"
    ):
        ensure_topic(producer, WAIT_S, plan=plan_of(f"{topic}.tracks"))


def unsigned_token(subject: str, *, life_s: float) -> str:
    """A token that is signed by nobody, as Kafka's own handler for tests takes it."""

    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now_s = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': subject, 'iat': now_s, 'exp': now_s + life_s})}."


def test_a_token_that_was_had_elsewhere(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("oauth")
    options = "security=SASL_PLAINTEXT&token"
    token = unsigned_token("producer", life_s=600.0)
    there_and_back(parse_kafka(f"kafka://{broker}/{topic}?{options}={token}"))
    ended = unsigned_token("geheim", life_s=-600.0)
    assert "the brokers refuse the token" in refusal(f"kafka://{broker}/{topic}?{options}={ended}")
    assert "the brokers refuse the token" in refusal(f"kafka://{broker}/{topic}?{options}=geheim")
    told = refusal(f"kafka://me:geheim@{broker}/{topic}?security=SASL_PLAINTEXT")
    assert "it does not support mechanism=SCRAM-SHA-512; it offers OAUTHBEARER" in told


@in_real_time
def test_tokens_of_an_endpoint_are_renewed_while_we_write(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("oauth")
    short = 3.0

    def answer() -> tuple[int, bytes]:
        token = {"access_token": unsigned_token("producer", life_s=short), "token_type": "Bearer"}
        return 200, json.dumps(token | {"expires_in": short}).encode()

    endpoint = Endpoint(answer)
    with endpoint.serving() as url:
        end = f"{broker}/{topic}?security=SASL_PLAINTEXT&token_url={url}"
        producer = connect_producer(parse_kafka(f"kafka://me:geheim@{end}"), WAIT_S)
        asked, stop_at = len(endpoint.asked), time.monotonic() + WAIT_S
        while len(endpoint.asked) < 3 and time.monotonic() < stop_at:
            producer.send(topic, value=b"a face").get(WAIT_S)
            time.sleep(0.1)
        close_producer(producer)
    assert asked == 1, "the clients of one attempt share a token"
    assert len(endpoint.asked) >= 3


def test_an_endpoint_that_refuses_us(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("oauth")
    with Endpoint(lambda: (401, b'{"error": "invalid_client"}')).serving() as url:
        told = refusal(f"kafka://me:geheim@{broker}/{topic}?security=SASL_PLAINTEXT&token_url={url}")
    assert "refuses the client's id or secret (invalid_client)" in told


@in_real_time
def test_brokers_that_name_themselves_where_nobody_finds_them(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("plaintext", "--set", "advertised.listeners=CLIENT://kafka.invalid:9092")
    told = refusal(f"kafka://{broker}/{topic}", within_s=5.0)
    assert "advertise kafka.invalid:9092, which cannot be reached; set their advertised" in told


def test_the_doctor_says_the_same_and_tells_no_secret(servers: Servers, topic: str) -> None:
    broker, _ = servers.open("plaintext", "--set", "advertised.listeners=CLIENT://kafka.invalid:9092")
    address = f"kafka://me:${{KAFKA_PASSWORD}}@{broker}/{topic}?security=SASL_PLAINTEXT"
    done = subprocess.run(
        [sys.executable, "-m", "stream.cli", "doctor", "--broker", address, "--debug"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"KAFKA_PASSWORD": "ge/heim@&", "COLUMNS": "500"},
    )
    assert done.returncode == 1
    assert "it does not require a login; leave out USER:PASSWORD@" in done.stdout
    assert "heim" not in done.stdout + done.stderr


def test_the_compose_file_makes_a_broker_that_takes_events(servers: Servers, topic: str) -> None:
    compose = yaml.safe_load((Path(__file__).parents[4] / "compose.yaml").read_text())
    settings = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in compose["services"]["kafka"]["environment"].items()
        if name.startswith("KAFKA_")
    }
    # Where it listens and keeps its data is another matter on this machine.
    for name in ("listeners", "advertised.listeners", "listener.security.protocol.map"):
        assert "INSIDE:" in settings.pop(name)
    for name in ("inter.broker.listener.name", "controller.quorum.voters", "log.dirs"):
        del settings[name]
    broker, _ = servers.open("plaintext", *(f"--set={name}={value}" for name, value in settings.items()))
    there_and_back(parse_kafka(f"kafka://{broker}/{topic}"))
    assert "there is no such topic" in refusal(f"kafka://{broker}/{topic}-misspelt?create=no")
