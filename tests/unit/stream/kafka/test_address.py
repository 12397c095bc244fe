from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SinkError
from stream.app.yaml_reader import expand_environment
from stream.kafka.address import KafkaAddress, identities_of, parse_kafka, show_kafka


def test_mutual_tls() -> None:
    address = parse_kafka("kafka://h:1/t?ca=/ca.crt&cert=/me.crt&key=/me.key&key_password=ge%26heim")
    assert address == KafkaAddress(
        ("h:1",),
        "t",
        security="SSL",
        ca_file=Path("/ca.crt"),
        cert_file=Path("/me.crt"),
        key_file=Path("/me.key"),
        key_password="ge&heim",
    )


def test_tokens_of_an_endpoint() -> None:
    address = parse_kafka("kafka://me:secret@h:1/t?token_url=https://login.example/token&scope=faces%20write")
    assert (address.security, address.mechanism) == ("SASL_SSL", "OAUTHBEARER")
    assert (address.token_url, address.scope) == ("https://login.example/token", "faces write")
    assert (address.username, address.password) == ("me", "secret")


def test_a_token_that_was_had_elsewhere_needs_no_login() -> None:
    address = parse_kafka("kafka://h:1/t?token=abc.d+/e==")
    assert (address.security, address.mechanism, address.token) == ("SASL_SSL", "OAUTHBEARER", "abc.d+/e==")


@pytest.mark.parametrize(
    ("hosts", "brokers"),
    [
        ("h", ("h:9092",)),
        ("a,b:1,c", ("a:9092", "b:1", "c:9092")),
        ("[::1]", ("[::1]:9092",)),
        ("[fe80::1%25eth0],[fe80::2%eth0]:1", ("[fe80::1%eth0]:9092", "[fe80::2%eth0]:1")),
    ],
)
def test_a_port_may_be_left_out(hosts: str, brokers: tuple[str, ...]) -> None:
    assert parse_kafka(f"kafka://{hosts}/t").brokers == brokers
    assert parse_kafka(f"kafka://me:pw@{hosts}/t").brokers == brokers


@pytest.mark.parametrize("hosts", ["::1", "h:0", "h:65536", "h:x", "", "a,,b", "[g::1]"])
def test_hosts_that_are_none(hosts: str) -> None:
    with pytest.raises(SinkError, match="PORT a number up to 65535"):
        parse_kafka(f"kafka://{hosts}/t")


def test_topics_are_made_unless_said_otherwise() -> None:
    assert parse_kafka("kafka://h:1/t").create
    assert not parse_kafka("kafka://h:1/t?create=no").create


@pytest.mark.parametrize(
    "text",
    [
        *("kafka://h:1/t?ca=", "kafka://h:1/t?ca=a&ca=b", "kafka://h:1/t?ca", "kafka://h:1/t?create=maybe"),
        *("kafka://h:1/..", "kafka://h:1/t?key=k", "kafka://h:1/t?ca=c&key_password=p", "http://h:1/t"),
        *("kafka://h:1/t?security=PLAINTEXT&ca=c", "kafka://h:1/t?scope=s", "kafka://a:b@h:1/t?token=x"),
        *(
            "kafka://h:1/t?mechanism=OAUTHBEARER",
            "kafka://h:1/t?token_url=https://x/",
            "kafka://h:1/t?token=a b",
        ),
        *(
            "kafka://a:b@h:1/t?token_url=http://far.example/t",
            "kafka://a:b@h:1/t?token_url=ftp://localhost/t",
        ),
        *("kafka://a:b@h:1/t?token_url=https://c:d@x/", "kafka://a:b@h:1/t?token_url=https://[x/"),
        *("kafka://a:b@h:1/t?mechanism=OAUTHBEARER", "kafka://h:1/t?token=x&token_url=https://x/"),
        *("kafka://a:b@h:1/t?token=&security=SASL_SSL", "kafka://a:b@h:1/t?mechanism=GSSAPI"),
        *("kafka://h:1/t?token=x&security=SSL",),
    ],
)
def test_what_does_not_go_together(text: str) -> None:
    with pytest.raises(SinkError, match=r"expected|known|go together|go with"):
        parse_kafka(text)


def test_secrets_go_to_an_endpoint_on_this_machine_without_tls() -> None:
    address = parse_kafka("kafka://a:b@h:1/t?token_url=http://127.0.0.1:8080/token")
    assert address.token_url == "http://127.0.0.1:8080/token"


def test_secrets_do_not_show() -> None:
    address = parse_kafka("kafka://me:geheim1@h:1/t?cert=c&key_password=geheim2&ca=x")
    token = parse_kafka("kafka://h:1/t?token=geheim3")
    for shown in (repr(address), str(address), show_kafka(address), repr(token), show_kafka(token)):
        assert "geheim" not in shown


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_secret_of_the_environment_may_hold_any_character(password: str, key_password: str) -> None:
    environment = {"PASSWORD": password, "KEY_PASSWORD": key_password, "BROKERS": "a:1,b:2"}
    text = "kafka://me:${PASSWORD}@${BROKERS}/t?cert=c&key_password=${KEY_PASSWORD}"
    address = parse_kafka(text, environment=environment)
    assert (address.password, address.key_password) == (password, key_password)
    assert address.brokers == ("a:1", "b:2")
    assert parse_kafka(expand_environment(text, environment, "here")) == address


def test_a_name_that_is_not_in_the_environment() -> None:
    with pytest.raises(SinkError, match=r"SECRET is not set; set it: export SECRET=…"):
        parse_kafka("kafka://me:${SECRET}@h:1/t", environment={})


OPTIONS = (
    "security",
    "mechanism",
    "ca",
    "cert",
    "key",
    "key_password",
    "token",
    "token_url",
    "scope",
    "create",
)


@given(st.dictionaries(st.sampled_from(OPTIONS), st.text(max_size=12), max_size=5), st.booleans())
def test_any_options_make_an_address_or_are_refused(options: dict[str, str], has_login: bool) -> None:
    query = "&".join(f"{name}={quote(value, safe='', errors='replace')}" for name, value in options.items())
    try:
        shown = repr(parse_kafka(f"kafka://{'me:geheim@' if has_login else ''}h:1/t?{query}"))
    except SinkError as exc:
        shown = str(exc)
    assert "geheim" not in shown
    assert "\n" not in shown


def test_identities_have_a_topic_of_their_own_or_none() -> None:
    apart = parse_kafka("kafka://h:1/faces?create=no&identities=names")
    assert apart.identities == "names"
    assert identities_of(apart) == parse_kafka("kafka://h:1/names?create=no")
    for text in ("kafka://h:1/faces", "kafka://h:1/faces?identities=faces"):
        together = parse_kafka(text)
        assert together.identities is None
        assert identities_of(together) == together
    with pytest.raises(SinkError, match="expected identities=TOPIC, of letters"):
        parse_kafka("kafka://h:1/faces?identities=a%2Fb")
