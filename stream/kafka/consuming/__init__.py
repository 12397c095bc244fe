"""From the brokers to events: each at least once, repeats left out.

In the order in which data flows:

    partitions      which partitions a consumer has, and where it begins
    polling         fetching past records that kafka-python cannot parse
    broker_watch    brokers that are away
    record_reader   records to events; bad_records: what is no event
    event_consumer  ``EventConsumer`` (public as ``stream.consumer``)
    asyncio_consumer    the same with asyncio (public as ``stream.async_consumer``)
"""
