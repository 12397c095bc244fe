from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import FacestreamError, SourceError
from stream.common.uris import (
    CaptureDevice,
    LocalPath,
    NetworkStream,
    TestPattern,
    parse_source,
    redact_text,
    redact_uri,
    split_credentials,
)
from stream.sinks.event_sink import parse_sink
from stream.video.media_files import check_media_file
from stream.video.sources import open_source

# Long and of one alphabet, so that finding them in a redacted text is no accident.
secrets = st.text("QXZ!$&'()*+,;=:@/?#%[] é§", min_size=8, max_size=20).filter(lambda text: text.strip())
names = st.from_regex(r"[a-z][a-z0-9.-]{0,10}[a-z0-9]", fullmatch=True)
paths = st.from_regex(r"(/[a-z0-9_.-]{1,8}){0,3}", fullmatch=True)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("clip.mp4", LocalPath(Path("clip.mp4"))),
        ("/data/a b/clip.mp4", LocalPath(Path("/data/a b/clip.mp4"))),
        ("odd:name.mp4", LocalPath(Path("odd:name.mp4"))),
        ("file:///data/a%20b.mp4", LocalPath(Path("/data/a b.mp4"))),
        ("file://localhost/data/x.mp4", LocalPath(Path("/data/x.mp4"))),
        ("v4l2:///dev/video0", CaptureDevice(Path("/dev/video0"))),
        ("test://", TestPattern()),
        ("test://ball", TestPattern("ball")),
        ("test://snow?frames=30&size=320x240&fps=10", TestPattern("snow", 30, (320, 240), 10)),
        ("rtsp://cam/live", NetworkStream("rtsp", "rtsp://cam/live")),
        ("RTSP://cam:8554/live", NetworkStream("rtsp", "RTSP://cam:8554/live")),
        ("rtsps://[fe80::1]:322/x", NetworkStream("rtsps", "rtsps://[fe80::1]:322/x")),
        ("rtsp://[fe80::1%25eth0]/x", NetworkStream("rtsp", "rtsp://[fe80::1%25eth0]/x")),
        ("rtsp://a:b@[fe80::1%eth0]:554/x", NetworkStream("rtsp", "rtsp://[fe80::1%25eth0]:554/x", "a", "b")),
        ("http://[fe80::1%eth0]/x", NetworkStream("http", "http://[fe80::1%25eth0]/x")),
        ("http://[fe80::1%25eth0]/x", NetworkStream("http", "http://[fe80::1%25eth0]/x")),
        ("https://cdn.example/a.m3u8?x=1", NetworkStream("https", "https://cdn.example/a.m3u8?x=1")),
        ("rtsp://u:p%40ss%2F@cam/1", NetworkStream("rtsp", "rtsp://cam/1", "u", "p@ss/")),
        ("rtsp://u:p@ss@cam/1", NetworkStream("rtsp", "rtsp://cam/1", "u", "p@ss")),
    ],
)
def test_sources_are_told_apart(source, expected):
    assert parse_source(source) == expected


def test_a_home_folder_is_found():
    assert parse_source("~/clip.mp4") == LocalPath(Path.home() / "clip.mp4")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "empty string"),
        ("ftp://host/x", "unknown scheme ftp://"),
        ("file://server/x", "three slashes"),
        ("v4l2://video0", "three slashes"),
        ("rtsp:///live", "HOST"),
        ("rtsp://host:port/live", "PORT a number"),
        ("rtsp://host:65536/live", "PORT a number"),
        ("rtsp://[:::]/live", "IPv6 address in brackets"),
        ("rtsp://::1/live", "IPv6 address in brackets"),
        ("rtsp://user:p/w@host/live", "write /, ?, #, @, : and % within a user name"),
        ("a\0b", "zero byte"),
        ("file:///a%00b", "zero byte"),
        ("test://nothing", "unknown pattern nothing"),
        ("test://ball?frame=3", "got frame"),
        ("test://ball?frames=0", "above 0"),
        ("test://ball?size=12", "above 0"),
        ("test://ball?fps=-1", "above 0"),
    ],
)
def test_nonsense_is_refused_in_one_line(source, says):
    with pytest.raises(SourceError) as caught:
        parse_source(source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "file", "v4l2", "test", "ftp", "kafka"])
odd_texts = st.text() | st.text("a1:/@?#[]%&=.-\0\ud800é⑴,", max_size=30)


def refusal(parse: Callable[[str], object], text: str) -> str:
    """Why a text is refused; empty where it is not."""
    try:
        parse(text)
    except FacestreamError as exc:
        return str(exc)
    return ""


# Whoever shows an error redacts the addresses in it: its help must survive that.
@given(st.one_of(odd_texts, st.builds("{}://{}".format, schemes, odd_texts)))
def test_any_text_is_a_source_or_is_refused_in_words_that_can_be_shown(source: str):
    why = refusal(lambda text: open_source(camera_id="c", uri=text).is_live, source)
    assert redact_text(why) == why
    redact_text(source, (source,))


sinks = ("kafka://{}", "kafka://h/t?{}", "sqlite:{}", "jsonl:{}")


@given(odd_texts | st.sampled_from(sinks).flatmap(lambda form: st.builds(form.format, odd_texts)))
def test_any_text_is_a_sink_or_is_refused_in_words_that_can_be_shown(text: str):
    why = refusal(parse_sink, text)
    assert redact_text(why) == why


@pytest.mark.parametrize("source", ["0", "video0", "/dev/video0"])
def test_a_camera_of_this_machine_is_suggested(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"write v4l2:///dev/video0"):
        check_media_file(Path(source))
    if source == "0":
        Path(source).write_bytes(b"a file of this name is one")
        check_media_file(Path(source))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("rtsp://u:p@cam:554/live?x=1#f", ("rtsp://cam:554/live?x=1#f", "u", "p")),
        ("rtsp://u@cam/live", ("rtsp://cam/live", "u", None)),
        ("rtsp://:p@cam/live", ("rtsp://cam/live", None, "p")),
        ("rtsp://u:@cam/live", ("rtsp://cam/live", "u", "")),
        ("rtsp://cam/live@2", ("rtsp://cam/live@2", None, None)),
        ("plain/path@x", ("plain/path@x", None, None)),
    ],
)
def test_credentials_are_split_off(uri, expected):
    assert split_credentials(uri) == expected


@given(names, secrets, secrets, paths)
def test_credentials_survive_the_way_through_a_uri(host, user, password, path):
    uri = f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@{host}{path}"
    assert split_credentials(uri) == (f"rtsp://{host}{path}", user, password)


@given(names, secrets, paths)
def test_no_password_survives_redaction(host, password, path):
    # Also as people write it who do not know of percent-encoding, as far as one can tell what is meant.
    ambiguous = "@" in password and set(password) & set("/?#")
    for written in {quote(password, safe="")} | (set() if ambiguous else {password, quote(password)}):
        shown = redact_uri(f"rtsp://admin:x{written}@{host}{path}")
        assert password not in shown
        assert written not in shown
        assert "admin" not in shown
        assert host in shown


@given(
    names,
    st.sampled_from(
        ["token", "access_token", "password", "pwd", "apikey", "X-Amz-Signature", "sig", "auth", "pw"]
    ),
    st.text("QXZ+%/=:é", min_size=8, max_size=20),
    paths,
)
def test_no_secret_of_a_query_survives_redaction(host, key, secret, path):
    shown = redact_uri(f"https://{host}{path}?channel=1&{key}={secret}&subtype=0")
    assert secret not in shown
    assert shown == f"https://{host}{path}?channel=1&{key}=***&subtype=0"


@given(names, secrets, secrets)
def test_no_secret_survives_in_a_text(host, user, password):
    encoded = quote(password, safe="")
    uri = f"rtsp://{quote(user, safe='')}:{encoded}@{host}/live?token={encoded}"
    text = f"Could not open '{uri}' as {user} with {password} or {quote(password)}"
    shown = redact_text(text, (user, password, None, ""))
    assert password not in shown
    assert quote(password, safe="") not in shown
    assert user not in shown


@pytest.mark.parametrize(
    "text",
    ["/data/clip.mp4", "rtsp://cam:554/live@2", "http://cam/x?channel=1", "Connection refused", "a: b"],
)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert redact_uri(text) == text
    assert redact_text(text, ("hunter2",)) == text


def test_a_stream_does_not_show_its_credentials():
    stream = parse_source("rtsp://admin:hunter2@cam/live?token=abcdef")
    assert "admin" not in repr(stream)
    assert "hunter2" not in repr(stream)
    assert "abcdef" not in repr(stream)


def test_a_refused_source_does_not_show_its_password():
    with pytest.raises(SourceError) as caught:
        parse_source("ftp://admin:hunter2@host/x")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        parse_source("rtsp://admin:hun/ter2@host/x")
    assert "ter2" not in str(caught.value)


def test_the_home_of_a_user_who_is_not_there_is_a_plain_path() -> None:
    assert parse_source("~nobody-has-this-name/x.mp4") == LocalPath(Path("~nobody-has-this-name/x.mp4"))


@pytest.mark.parametrize("before", ["", "//", "rtsp:/", "rtsp//", "rtsp:", "rtsp;//"])
@pytest.mark.parametrize("password", ["s3cret", "s3/cret", "s3:cret", "s3@cret"])
def test_a_login_without_a_scheme_is_refused_and_not_shown(before, password):
    source = f"{before}admin:{password}@192.0.2.5:554/stream1"
    with pytest.raises(SourceError, match="expected rtsp://USER:PASSWORD@HOST/PATH") as caught:
        parse_source(source)
    assert "cret" not in str(caught.value)
    assert redact_uri(source) == "192.0.2.5:554/stream1"


@pytest.mark.parametrize(
    "path", ["./a:b@c.mp4", "/data/a:b@c.mp4", "~/a:b@c.mp4", "me@home.mp4", "10:30.mp4"]
)
def test_files_may_have_at_signs_and_colons(path):
    assert isinstance(parse_source(path), LocalPath)
    assert redact_uri(path) == path
