"""Who is who among tracks, without knowing anybody.

    track_groups    tracks grouped by person, and corrections by people
    incremental     the same while tracks come and go
    shot_reader     best shots, read again from the videos
    html_report     groups as one HTML page (``html_report.css``, ``html_report.js``)

May import tracking, video and events.
"""
