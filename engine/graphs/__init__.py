"""ONNX graphs as data, without an engine.

In the order in which data flows:

    edits       fold constants, free shapes, take camera pixels, rewrite PRelu
    builder     small graphs by hand
    cost        multiply-accumulates, layer by layer
"""
