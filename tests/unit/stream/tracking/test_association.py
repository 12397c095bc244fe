from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.tracking.association import associate, widened


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inside = width * height
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def best_sum(tracks, faces, min_overlap):
    """Tries every way to pair them."""
    short, long = (tracks, faces) if len(tracks) <= len(faces) else (faces, tracks)
    return max(
        sum(
            value if value >= min_overlap else 0
            for value in (plain_iou(a, long[i]) for a, i in zip(short, chosen, strict=True))
        )
        for chosen in permutations(range(len(long)), len(short))
    )


near = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    *(st.integers(0, 30), st.integers(0, 30), st.integers(5, 30), st.integers(5, 30)),
)


@given(st.lists(near, max_size=4), st.lists(near, max_size=4), st.sampled_from([0.01, 0.2, 0.5]))
def test_no_other_pairing_overlaps_more(tracks, faces, min_overlap):
    rows, columns = associate(boxes(*tracks), boxes(*faces), min_overlap=min_overlap)
    values = [plain_iou(tracks[r], faces[c]) for r, c in zip(rows, columns, strict=True)]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert all(value >= min_overlap - 1e-6 for value in values)
    assert sum(values) == pytest.approx(best_sum(tracks, faces, min_overlap), abs=1e-5)


def test_a_face_that_moved_by_its_own_width_is_found_only_with_a_margin():
    track, face = boxes((100, 100, 140, 140)), boxes((140, 100, 180, 140))
    assert associate(track, face, min_overlap=0.2)[0].tolist() == []
    assert associate(track, face, min_overlap=0.2, margin=0.3)[0].tolist() == [0]


def test_the_margin_keeps_neighbours_apart():
    track, face = boxes((100, 100, 140, 140)), boxes((160, 100, 200, 140))
    assert associate(track, face, min_overlap=0.2, margin=0.3)[0].tolist() == []


def test_widened_moves_each_side():
    np.testing.assert_allclose(widened(boxes((10, 20, 30, 60)), 0.5), boxes((0, 0, 40, 80)))
