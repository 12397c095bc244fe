from stream.video.gstreamer.autoplug import VideoChoice


def test_the_first_video_is_taken_and_no_other():
    choice = VideoChoice(1)
    assert [choice.takes(media) for media in ("audio", "video", "video")] == [False, True, False]
    assert choice.trouble() is None


def test_the_named_video_is_taken_also_of_a_later_set():
    choice = VideoChoice(2)
    assert [choice.takes("video") for _ in range(3)] == [False, True, False]
    choice.begin_set()
    assert [choice.takes("video") for _ in range(3)] == [False, True, False]


def test_what_is_not_offered_is_told():
    choice = VideoChoice(3)
    assert choice.trouble() is None  # nothing was offered: the trouble is another
    assert not choice.takes("audio")
    assert choice.trouble() == "holds no video, only audio; expected a video stream"
    assert not choice.takes("video")
    assert choice.trouble() == "has no video 3, only 1; set video: 1"
