"""``facestream bench``: measurements of speed and accuracy.

    speed       the group of commands; stream, engine, events, gallery
    accuracy, identification, clustering    benchmarks of ``training``
    options     what the accuracy benchmarks share

Beside ``cli.models``, the only modules of ``stream`` that import ``training``.
"""
