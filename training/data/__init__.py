"""From data sets to embeddings and records.

    lfw_files, ytf_files, pairs, names  lists and folders of data sets
    model_setup     a detector and an embedder, with all that a benchmark must say about them
    face_crops      image files to aligned faces
    embedding_reader, person_faces, worker_tally    image files to embeddings, in parallel
    cache           kept by the images' content
    results         a run's record as JSON
    array_types     types of arrays that all of ``training`` shares
    safe_text       text that is fit for pages and terminals

Imports no other room.
"""
