from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import ConfigError, FacestreamError, SinkError
from stream.cli.errors import say_error
from stream.common.logs import configure_logging, get_logger
from stream.common.open_files import check_limit, explained, files_left, raise_limit
from stream.sinks.event_log import read_log
from stream.sinks.event_sink import open_sink
from stream.spool.spool import Spool
from stream.video.camera_status import StatusReporter
from stream.video.frames import CameraState, CameraStatus
from stream.video.sources import open_source


@pytest.fixture(autouse=True)
def limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def leave() -> Iterator[Callable[[int], None]]:
    """Lets this process open so many more files."""
    taken: list[int] = []

    def take_others(files: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 16, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(files):
            os.close(taken.pop())

    yield take_others
    for each in taken:
        os.close(each)


def test_the_soft_limit_is_raised_to_the_hard_one(limit: tuple[int, int]):
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    raise_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(hard, 1 << 16)


def test_a_run_that_needs_more_is_refused_before_it_begins(limit: tuple[int, int]):
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    check_limit(["rtsp://h/x"] * 12)
    check_limit(["lobby.mp4"] * 24)
    with pytest.raises(ConfigError, match=r"13 need up to 272 open files; .* ulimit -n 4096, LimitNOFILE="):
        check_limit(["rtsp://h/x"] * 13)


USES: list[Callable[[Path], object]] = [
    lambda folder: open_sink(f"jsonl:{folder}/e.jsonl"),
    lambda folder: open_sink(f"sqlite:{folder}/e.db"),
    lambda folder: Spool(folder / "spool"),
    lambda folder: list(read_log(f"sqlite:{folder}/old.db")),
    lambda _: next(open_source(camera_id="a", uri="test://ball?frames=1").frames()),
]


@pytest.mark.parametrize("use", USES)
def test_whatever_is_opened_says_that_and_the_way_out(
    use: Callable[[Path], object],
    tmp_path: Path,
    leave: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
):
    open_sink(f"sqlite:{tmp_path}/old.db").close(1.0)
    leave(0)
    with pytest.raises((FacestreamError, OSError)) as caught:
        use(tmp_path)
    say_error(caught.value)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "too many open files; this process may have" in told
    assert "permissions" not in told


def test_a_camera_and_the_log_say_it_too():
    told: list[CameraStatus] = []
    why = f"rtsp://h/x: cannot connect to h port 554 ({os.strerror(errno.EMFILE)}); check host"
    StatusReporter("door", told.append).tell(CameraState.DOWN, reason=why)
    assert told[0].reason.startswith("rtsp://h/x: too many open files; this process may have")
    out = io.StringIO()
    configure_logging(stream=out)
    get_logger("test").warning("kafka does not take events", reason=why)
    assert "ulimit -n" in out.getvalue()


def test_other_errors_stay_as_they_are():
    assert explained("door: no frame for 3 s") == "door: no frame for 3 s"
    left = files_left()
    assert left is None or left > 8


def test_what_hardly_anything_is_left_for_says_so_whatever_it_raised(
    leave: Callable[[int], None], capsys: pytest.CaptureFixture[str]
):
    leave(4)
    say_error(SinkError("e.db: unable to open database file"))
    assert "e.db: too many open files" in capsys.readouterr().err
