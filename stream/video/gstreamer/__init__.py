"""GStreamer: video becomes arrays, and arrays become video.

    bindings        the only file that imports ``gi``
    elements        which elements are used, and what installs them
    decoding        video to arrays; autoplug, damaged_frames, display_size
    encoding        arrays to H.264
    explanations    GStreamer's errors, in words with their remedy

Imports nothing of the room around it.
"""
