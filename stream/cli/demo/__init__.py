"""``facestream demo``: from a clip to everything that facestream makes of it.

In the order in which data flows:

    cast        two public-domain portraits and one drawing (``sam.webp``)
    clip        the made clip: three people come, go and come back
    demo        the run
    story       what happened, in words
"""
