from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.video.gstreamer.damaged_frames import DamageWatch

MS = 1_000_000
STEP_NS = 40 * MS


class Stream:
    """Pictures that come out of the decoder as soon as they go in, 25 a second."""

    def __init__(self, **settings: float) -> None:
        self.watch = DamageWatch(**settings)
        self.pts_ns = -STEP_NS

    def show(
        self, kinds: str, *, is_after_loss: bool = False, is_corrupt: bool = False, complains: bool = False
    ) -> str:
        """Pictures, K for a key frame and P for another; the same with x in place of the damaged ones."""
        out = ""
        for kind in kinds:
            self.pts_ns += STEP_NS
            self.watch.enter(
                self.pts_ns, is_key=kind == "K", is_after_loss=is_after_loss, is_corrupt=is_corrupt
            )
            if complains:
                self.watch.complain()
            out += "x" if self.watch.is_damaged(self.pts_ns) else kind
        return out


def test_a_clean_stream_loses_nothing():
    stream = Stream()
    assert stream.show("K", is_after_loss=True) == "K"  # the first picture has nothing before it
    assert stream.show("PPPKPPP") == "PPPKPPP"


def test_a_stream_may_begin_anywhere():
    assert Stream().show("P", is_after_loss=True) == "P"


def test_after_a_complaint_all_is_damaged_until_the_next_key_frame():
    stream = Stream()
    assert stream.show("KP") == "KP"
    assert stream.show("P", complains=True) == "x"
    assert stream.show("PPPKPP") == "xxxKPP"


def test_a_loss_is_a_damage_but_not_before_a_key_frame():
    stream = Stream()
    stream.show("KPP")
    assert stream.show("P", is_after_loss=True) == "x"
    assert stream.show("P") == "x"
    assert stream.show("K", is_after_loss=True) == "K"
    assert stream.show("PP") == "PP"


def test_a_key_frame_that_is_damaged_itself_mends_nothing():
    stream = Stream()
    stream.show("KPP")
    assert stream.show("K", complains=True) == "x"
    assert stream.show("PPKP") == "xxKP"
    assert stream.show("K", is_corrupt=True) == "x"
    assert stream.show("PK") == "xK"


def test_the_decoder_may_flag_what_it_gives_out():
    watch = DamageWatch()
    watch.enter(0, is_key=True, is_after_loss=False, is_corrupt=False)
    assert watch.is_damaged(0, is_corrupt=True)


def test_a_stream_of_key_frames_loses_only_those_that_are_hit():
    stream = Stream()
    assert stream.show("KK") == "KK"
    assert stream.show("K", complains=True) == "x"
    assert stream.show("KKK") == "KKK"


def test_a_stream_without_key_frames_is_not_blocked_for_ever():
    stream = Stream(most_wait_s=1.0)
    stream.show("KP")
    assert stream.show("P", complains=True) == "x"
    assert stream.show("P" * 50) == "x" * 25 + "P" * 25
    assert stream.show("P", complains=True) == "x"
    assert stream.show("PP") == "PP"
    assert stream.show("KP") == "KP"  # now it is known to have some
    assert stream.show("P", complains=True) == "x"
    assert stream.show("PPK") == "xxK"


def test_pictures_shown_before_a_key_frame_but_decoded_after_it_build_on_what_was_before():
    watch = DamageWatch()
    for number, kind in ((0, "K"), (1, "P"), (4, "K"), (2, "B"), (3, "B"), (5, "P")):
        watch.enter(number * STEP_NS, is_key=kind == "K", is_after_loss=number == 1, is_corrupt=False)
    assert [watch.is_damaged(number * STEP_NS) for number in range(6)] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_timestamps_that_are_damaged_too_do_not_end_the_wait():
    watch = DamageWatch()
    for pts_ns in (0, STEP_NS, 10**15, 2 * STEP_NS, None, 3 * STEP_NS):
        watch.enter(pts_ns, is_key=pts_ns == 0, is_after_loss=pts_ns == STEP_NS, is_corrupt=False)
    assert watch.is_damaged(10**15)
    assert watch.is_damaged(10**15 + 1)  # as the decoder puts it
    assert watch.is_damaged(None)
    assert watch.is_damaged(3 * STEP_NS)


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 10**12), st.booleans(), st.booleans(), st.booleans(), st.booleans()
        ),
        max_size=60,
    )
)
def test_a_whole_key_frame_is_never_damaged(pictures):
    watch = DamageWatch(most_wait_s=0.2)
    for pts_ns, is_key, is_after_loss, is_corrupt, complains in pictures:
        watch.enter(pts_ns, is_key=is_key, is_after_loss=is_after_loss, is_corrupt=is_corrupt)
        if complains:
            watch.complain()
        is_hit = is_corrupt or complains
        if is_hit or is_key:
            assert watch.is_damaged(pts_ns) == is_hit
    assert len(watch._in_decoder) <= 256
