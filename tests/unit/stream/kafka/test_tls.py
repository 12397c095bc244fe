from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from kafka_listener import answer_of, listening

from engine.errors import SinkError
from stream.kafka.address import KafkaAddress
from stream.kafka.connection_check import check_listeners
from stream.kafka.tls import tls_context

NO_LOGIN_HERE = answer_of(34)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server_context(files: tuple[Path, Path], *, clients_of: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of.ca_file)
    return context


def check(broker: str, authority: Authority | None, **options: object) -> None:
    ca_file = None if authority is None else authority.ca_file
    address = replace(KafkaAddress((broker,), "t", security="SSL", ca_file=ca_file), **options)
    check_listeners(address, tls_context(address), 30.0)


def test_a_broker_whose_certificate_is_right(authority: Authority) -> None:
    server = server_context(authority.issue("broker", hosts=("127.0.0.1",)))
    with listening(NO_LOGIN_HERE, server) as broker:
        check(broker, authority)


def test_an_unknown_ca(authority: Authority, tmp_path: Path) -> None:
    server = server_context(authority.issue("broker", hosts=("127.0.0.1",)))
    with listening(NO_LOGIN_HERE, server) as broker:
        with pytest.raises(SinkError, match=r"signed by an unknown CA; expected one of ca=.*stranger\.crt"):
            check(broker, Authority(tmp_path, "stranger"))
        with pytest.raises(SinkError, match=r"unknown CA; .* this machine's; give another with ca=FILE"):
            check(broker, None)


def test_a_certificate_that_has_ended(authority: Authority) -> None:
    server = server_context(authority.issue("broker", hosts=("127.0.0.1",), ends_in_days=-1.0))
    with listening(NO_LOGIN_HERE, server) as broker, pytest.raises(SinkError, match="has expired; renew it"):
        check(broker, authority)


def test_a_certificate_for_another_host(authority: Authority) -> None:
    for host in ("kafka.example", "192.0.2.1"):
        server = server_context(authority.issue("broker", hosts=(host,)))
        with listening(NO_LOGIN_HERE, server) as broker, pytest.raises(SinkError, match="another host name"):
            check(broker, authority)


def test_plaintext_where_tls_is_spoken(authority: Authority) -> None:
    server = server_context(authority.issue("broker"))
    with (
        listening(NO_LOGIN_HERE, server) as broker,
        pytest.raises(SinkError, match="it uses TLS; use security=SSL there"),
    ):
        check(broker, None, security="PLAINTEXT")


def test_tls_where_none_is_spoken(authority: Authority) -> None:
    with (
        listening(NO_LOGIN_HERE) as broker,
        pytest.raises(SinkError, match="it does not use TLS; use security=PLAINTEXT there"),
    ):
        check(broker, authority)


def test_a_listener_that_ends_the_connection_may_be_about_to_start(authority: Authority) -> None:
    with listening(None) as broker:
        check(broker, authority)


def test_what_is_no_tls(authority: Authority) -> None:
    with (
        listening(b"HTTP/1.1 400 Bad Request\r\n\r\n", greedy=True) as broker,
        pytest.raises(SinkError, match=r"it refuses TLS \(SSLError\); check that it is Kafka"),
    ):
        check(broker, authority)


def test_a_broker_that_asks_who_we_are(authority: Authority) -> None:
    server = server_context(authority.issue("broker", hosts=("127.0.0.1",)), clients_of=authority)
    cert_file, key_file = authority.issue("client")
    with listening(NO_LOGIN_HERE, server) as broker:
        check(broker, authority, cert_file=cert_file, key_file=key_file)
        with pytest.raises(SinkError, match=r"requires a client certificate; give one: cert=FILE&key=FILE"):
            check(broker, authority)


def test_a_client_certificate_that_is_refused(authority: Authority, tmp_path: Path) -> None:
    server = server_context(authority.issue("broker", hosts=("127.0.0.1",)), clients_of=authority)
    stranger = Authority(tmp_path, "stranger").issue("guest")
    expired = authority.issue("expired", ends_in_days=-1.0)
    with listening(NO_LOGIN_HERE, server) as broker:
        with pytest.raises(
            SinkError, match=r"refuses the client certificate .*guest\.crt: its signer must be"
        ):
            check(broker, authority, cert_file=stranger[0], key_file=stranger[1])
        with pytest.raises(
            SinkError, match=r"refuses the client certificate .*expired\.crt: it expired at 20"
        ):
            check(broker, authority, cert_file=expired[0], key_file=expired[1])


def identity(cert_file: Path, key_file: Path | None = None, password: str | None = None) -> KafkaAddress:
    return KafkaAddress(
        ("h:1",), "t", security="SSL", cert_file=cert_file, key_file=key_file, key_password=password
    )


def test_an_encrypted_key(authority: Authority) -> None:
    cert_file, key_file = authority.issue("client", password="geheim")
    assert tls_context(identity(cert_file, key_file, "geheim")) is not None
    with pytest.raises(SinkError, match=r"encrypted; give its password: key_password=\$\{NAME\}"):
        tls_context(identity(cert_file, key_file))
    with pytest.raises(SinkError, match=r"its password \(key_password\) is wrong") as caught:
        tls_context(identity(cert_file, key_file, "gehein"))
    assert "gehein" not in str(caught.value)


def test_files_that_do_not_serve(authority: Authority, tmp_path: Path) -> None:
    cert_file, _ = authority.issue("client")
    _, other_key = authority.issue("other")
    text = tmp_path / "text"
    text.write_text("no certificate")
    with pytest.raises(SinkError, match=r"other\.key: it is not the key of .*client\.crt"):
        tls_context(identity(cert_file, other_key))
    with pytest.raises(SinkError, match=r"expected a private key"):
        tls_context(identity(cert_file))
    with pytest.raises(SinkError, match=r"key .*nowhere: cannot be read \(No such file"):
        tls_context(identity(cert_file, tmp_path / "nowhere"))
    for ca_file, words in ((text, "expected certificates in PEM, found none"), (tmp_path, "cannot be read")):
        with pytest.raises(SinkError, match=words):
            tls_context(KafkaAddress(("h:1",), "t", security="SSL", ca_file=ca_file))
