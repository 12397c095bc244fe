"""Sources to frames, and frames to files.

    camera_ids          what cameras are called
    media_files, container_check    files before anything is decoded
    sources             ``open_source``
    live_camera         live cameras: reconnect with back-off; camera_status tells
    playback            one life of a decoding pipeline
    gstreamer/          decoding, encoding, and the only file that imports ``gi``
    frame_sampler, sampling_interval    which frames are looked at
    frames              ``Frame`` and ``FrameSource``
    drawing, mp4_writer pictures and videos for people

Imports only common.
"""
