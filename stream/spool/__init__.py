"""Events on disk from the moment they count as emitted until a broker has acknowledged them.

    packed_records  events as Kafka records, packed once
    spool           append, read, settle; the limit on disk space
    segment         one file: written by one process, read while it is written
    framing         its bytes: a header, and frames with checksums
    cursor_and_lock how far delivery has come; the lock of the process that has the spool
    administration  looking into spools from outside, erasing, giving up

May import events. Survives a kill at any moment, and a full disk.
"""
