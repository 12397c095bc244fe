"""Where events go, and how they are read back.

    event_sink      the contract of a sink, and what a sink's address means
    json_lines, sqlite  files (Kafka: ``stream.kafka.delivery``)
    event_log       events read back from a topic or a file, in order
    completeness    whether a log is whole
    track_history   the newest state of each track
    track_erasure   a person's tracks out of topics and files

May import kafka, spool and events.
"""
