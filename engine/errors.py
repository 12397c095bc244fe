"""Errors caused by the environment. Callers' mistakes are ``ValueError``.

    FacestreamError
    ├── ModelError      a model or an engine cannot be found, trusted, built or run
    ├── PictureError    a picture file cannot be decoded
    ├── SourceError     a camera, file or folder cannot be read
    ├── SinkError       events cannot be delivered
    ├── ConfigError     a configuration file or a command line does not make sense
    ├── GalleryError    the people enrolled cannot be read, changed, or compared with
    ├── DatasetError    a benchmark's data is missing or contradicts itself
    └── TextError       a name from outside is not accepted; a ValueError, too

A message says what happened, what was found and expected, and how to fix it. It is one line, holds no
secret, and is what the command line prints before it exits with a non-zero code.
"""


class FacestreamError(Exception):
    """Base of all errors caused by the environment."""


class ModelError(FacestreamError):
    """A model or an engine cannot be found, trusted, built or run."""


class PictureError(FacestreamError):
    """A picture file cannot be decoded."""


class SourceError(FacestreamError):
    """A camera, file or folder cannot be read."""


class SinkError(FacestreamError):
    """Events cannot be delivered."""


class ConfigError(FacestreamError):
    """A configuration file or a command line does not make sense."""


class DatasetError(FacestreamError):
    """A benchmark's data is missing or contradicts itself."""


class GalleryError(FacestreamError):
    """The people enrolled cannot be read, changed, or compared with."""


class TextError(FacestreamError, ValueError):
    """A name from outside is not accepted: it is empty, too long, or has characters that cannot be seen.

    It is a ``ValueError`` as well, for callers who check names of their own and for models that validate.
    """
