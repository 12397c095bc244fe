"""What every room may use; imports no other.

In the order in which data flows:

    printable, names    text and names from outside
    uris                what addresses of sources mean; credentials, references, redaction
    encryption          of what identifies people, at rest
    logs                logging; the only file that imports ``structlog``
    open_files          the limit on open files
    http_client         a web server that is not trusted
    standard_output     closed, or read by nobody
    varint              integers of variable length
"""
