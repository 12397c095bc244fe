"""The main job: frames of many cameras in, events of their tracks out.

    frame_queue     frames of many cameras to one consumer, bounded, in each camera's order
    recognizer      detect, track, choose, embed, in batches
    pipeline        cameras to events; one camera's trouble is never another's
    annotated_video every frame that was looked at, with its tracks drawn on it

May import gallery (names for the annotated video), tracking, video and events.
"""
