"""Write who came and went, and when, to a CSV file.

python examples/entry_exit_log.py kafka://localhost:9092/faces door-log.csv
"""

import csv
import signal
import sys
from pathlib import Path

from facestream import EventConsumer, FaceEvent, IdentityEvent

WHAT = {"appeared": "enters", "left": "leaves", "decided": "is", "corrected": "is rather"}

if len(sys.argv) != 3:
    sys.stderr.write(f"usage: python {sys.argv[0]} SOURCE CSV_FILE\n\n{__doc__}\n")
    sys.exit(2)
source, log = sys.argv[1], Path(sys.argv[2])
log.touch()
with log.open(newline="") as file:  # what was written before this process began
    written = [row for row in csv.reader(file) if len(row) == 6]
seen = {row[0] for row in written}
names = {row[3]: row[5] for row in written if row[4].startswith("is")}
with log.open("a", newline="") as file, EventConsumer(source, group=f"log-{log.stem}") as events:
    for sign in signal.SIGINT, signal.SIGTERM:
        signal.signal(sign, lambda *_: events.stop())
    rows = csv.writer(file)
    for event in events:
        if not isinstance(event, FaceEvent | IdentityEvent) or event.change.value not in WHAT:
            continue
        if isinstance(event, IdentityEvent):
            names[event.track_id] = event.person_name or "unknown"
        name, what = names.get(event.track_id, ""), WHAT[event.change.value]
        if event.event_id not in seen:
            rows.writerow([event.event_id, event.at.isoformat(), event.camera_id, event.track_id, what, name])
            file.flush()  # before the next event is asked for
