"""Models on arrays: detect, align, embed, run, search. No video, no broker, no configuration files.

At the root: errors, faces, embeddings, geometry, protocol (of engines); batching, atomic_files, html_pages,
home_folders, optional_libraries. The rooms, from the top; each imports only those below it and the root:

    opening         engines and models, opened for use
    compilation     a model package to an engine that is as good as the model
    vision, search  faces in images; people among embeddings (neither imports the other)
    models          model packages and where they come from
    backends        OpenVINO, ONNX Runtime, TensorRT, one vendor's library a file
    graphs          ONNX graphs as data
"""
