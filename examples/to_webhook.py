"""Post each event as a CloudEvent in JSON to a URL, until it is taken.

python examples/to_webhook.py kafka://localhost:9092/faces https://example.org/hook
"""

import itertools
import logging
import os
import signal
import sys
import threading
from urllib import error, request

from facestream import EventConsumer
from stream.app.yaml_reader import expand_address
from stream.common.uris import redact_uri
from stream.events.cloudevents import to_json

stopping = threading.Event()


def post(url: str, body: bytes) -> None:
    """Try until the receiver takes it, or says that it never will. When stopped, the event comes again."""
    call = request.Request(url, body, {"Content-Type": "application/cloudevents+json"})  # noqa: S310 - see below
    for attempt in itertools.count():
        try:
            request.urlopen(call, timeout=10.0).close()  # noqa: S310 - the user's own address
            break
        except OSError as exc:
            logging.warning("%s: %s", redact_uri(url), exc)
            if isinstance(exc, error.HTTPError) and exc.code < 500 and exc.code not in {408, 429}:
                break
            if stopping.wait(min(16.0, 0.5 * 2**attempt)):
                sys.exit()


if len(sys.argv) != 3:
    sys.stderr.write(f"usage: python {sys.argv[0]} SOURCE URL\n\n{__doc__}\n")
    sys.exit(2)
source, url = (expand_address(each, os.environ) for each in sys.argv[1:])  # ${NAME} keeps secrets out
with EventConsumer(source, group="to-webhook", batch=20) as events:
    for sign in signal.SIGINT, signal.SIGTERM:
        signal.signal(sign, lambda *_: (stopping.set(), events.stop()))
    for event in events:
        post(url, to_json(event))
