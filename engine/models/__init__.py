"""Model packages: ONNX and all that must travel with it.

    package         preprocessing, alignment, thresholds, licence, provenance
    alignment       the template that landmarks are warped to
    catalogue       packages by name
    pretrained, dlib_weights, mtcnn_weights, torch_state_dict   published weights to ONNX
    fusion          several embedders as one
    cache           models made once

May import graphs.
"""
