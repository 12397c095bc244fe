"""Faces of one camera followed over time.

    tracker, kalman_filter, association     places: which detection continues which track
    scene_cut           the picture jumps to another scene
    track_state         what is remembered of one person
    tentative_tracks    faces seen too seldom for a track
    track_lifecycle     when tracks appear, are updated and leave; which faces to embed

May import video (``Frame``, ``Pace``) and events.
"""
