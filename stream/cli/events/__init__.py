"""``facestream events``: look at what was written, check it, replay it, make topics.

In the order in which data flows:

    log         the group of commands
    replay      what they do: choose, show and replay events
    topics      ``facestream events topics``
"""
