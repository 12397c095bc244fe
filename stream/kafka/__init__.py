"""Kafka.

    address             what ``kafka://`` means
    security, tls, oauth    TLS, logins and tokens
    connection_check    does a listener answer, with TLS, with a login?
    kafka_python        the seam to kafka-python: the only file that imports ``kafka``
    clients             producers and consumers that have met their brokers
    topic_plan, topic_admin     which topics there are to be, and making them
    schema_registry     schema ids over HTTP
    delivery/           spool to brokers
    consuming/          brokers to events
    error_types, explanations   failures as types, and in words with their remedy

May import spool and events. The two rooms within do not import each other, and nothing here imports them.
"""
