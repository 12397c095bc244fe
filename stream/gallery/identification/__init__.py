"""Who is it, of the people enrolled?

In the order in which data flows:

    matcher         one state of a gallery, ready to be searched
    identifier      events of tracks to events of identities
    worker          the same as a Kafka consumer of its own (``facestream identify``)
    decisions_topic where decisions are written, and read back by whoever takes over
    attendance      who was recognised in a run, counted
    metrics         Prometheus metrics of the worker
    face_naming     names for the faces of single photographs
"""
