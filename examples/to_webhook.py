"""Post each event as a CloudEvent in JSON to a URL, until it is taken.

python examples/to_webhook.py kafka://localhost:9092/faces https://example.org/hook
"""

import itertools
import logging
import os
import signal
import sys
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from stream.cloudevents import to_json
from stream.config_tree import expand_address
from stream.consumer import EventConsumer
from stream.uris import redact_uri

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


def post(url: str, body: bytes) -> None:
    """Try until the receiver takes it, or says that it never will."""
    request = Request(url, body, {"Content-Type": "application/cloudevents+json"})  # noqa: S310 - see below
    for wait_s in itertools.chain(WAITS_S, itertools.repeat(WAITS_S[-1])):
        try:
            urlopen(request, timeout=10.0).close()  # noqa: S310 - the user's own address
            break
        except OSError as exc:
            logging.warning("%s: %s", redact_uri(url), exc)
            if isinstance(exc, HTTPError) and exc.code < 500 and exc.code not in {408, 429}:
                break
            time.sleep(wait_s)


if len(sys.argv) != 3:
    sys.stderr.write(f"usage: python {sys.argv[0]} SOURCE URL\n\n{__doc__}\n")
    sys.exit(2)
source, url = (expand_address(each, os.environ) for each in sys.argv[1:])  # ${NAME} keeps secrets out
with EventConsumer(source, group="to-webhook", batch=20) as events:
    signal.signal(signal.SIGTERM, lambda *_: events.stop())
    for event in events:
        post(url, to_json(event))
