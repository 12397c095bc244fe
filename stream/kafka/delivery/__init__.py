"""From the spool to the brokers: each event acknowledged, in order, none lost.

In the order in which data flows:

    spooled_sink    events in: on disk when ``emit`` returns
    delivery_thread what is sent when, and what may be settled
    batches         whole Kafka batches from packed records
"""
