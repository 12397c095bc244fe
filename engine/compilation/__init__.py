"""From a model package to an engine that is as good as the model.

    importing, preprocessing, separation    a user's own ONNX file, and the proof of its preprocessing
    source_graphs, precision    the graph that an engine gets: fp32, fp16, bf16, int8
    sample_faces    faces for calibration and comparison
    compile         the engine, built in a child_process, in a staging folder
    parity_check, tolerances    the engine against the model, and how near it must come
    store           compiled engines on disk
    runtimes        what runs on this machine

May import vision, models, backends and graphs.
"""
