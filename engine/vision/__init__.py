"""Faces in images.

    file_signatures, image_decoding     files to arrays
    upscaling, tiling       small images enlarged, large ones in parts
    detection, yunet, mtcnn, open_detector  finding faces
    landmark_refinement     a second, closer look at landmarks
    quality, decoder_artifacts  how much a view of a face is worth
    embedder                aligned faces to unit vectors
    face_finder             all of that for single images

May import models.
"""
