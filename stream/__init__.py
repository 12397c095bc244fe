"""The live half: cameras to frames to tracks to events, and the command line.

Programs import from ``facestream``; ``consumer``, ``async_consumer``, ``watch``, ``testing`` and ``events``
are what it shows of this package. The rooms, from the top; each imports only those below it, ``engine``, and
itself (checked by ``make check``):

    cli         commands
    bench       speed measurements
    console     terminal, tables, progress, signals
    app         settings, wiring, runner, metrics
    pipeline    cameras to frames to events
    clusters    tracks grouped by person
    gallery     the people who are enrolled, and who is one of them
    sinks       where events are written, and how they are read back
    kafka       Kafka: connecting, delivering, consuming
    spool       events on disk until a broker has acknowledged them
    tracking    faces to tracks
    video       sources to frames, frames to files
    events      events and their formats
    common      what every room may use
"""
