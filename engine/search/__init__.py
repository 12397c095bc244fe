"""People among embeddings.

    index, faiss_scan   nearest templates, exact or compressed (the only file that imports ``faiss``)
    open_set_threshold  is it one of the people enrolled? the threshold of a false-accept rate
    clustering          groups without names, by average linkage
    model_mapping       embeddings of one model to another's space

May import models (thresholds travel with a model).
"""
