"""Sources and sinks made of lists, for tests of programs that build on facestream."""

from stream.testing import ListSink, ListSource, SourceItem, frames_of

__all__ = [
    "ListSink",
    "ListSource",
    "SourceItem",
    "frames_of",
]
