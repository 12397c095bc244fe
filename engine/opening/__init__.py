"""Engines and models, opened for use.

    select          open an engine: the one asked for, or the fastest that passes
    face_models     a detector and an embedder together, for runs and benchmarks alike
    verify          every engine of this machine against a model

May import compilation, vision, models and whatever is below them.
"""
