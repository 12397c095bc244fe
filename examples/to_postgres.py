"""Keep the newest state of each track in PostgreSQL.

python examples/to_postgres.py kafka://localhost:9092/faces postgresql://localhost/faces
"""

import signal
import sys

try:
    import psycopg
except ModuleNotFoundError:
    sys.exit("psycopg is not installed; run: pip install 'psycopg[binary]>=3.2'")

from facestream import EventConsumer, FaceEvent

TABLE = """CREATE TABLE IF NOT EXISTS tracks (
    track_id text PRIMARY KEY, camera_id text NOT NULL, state text NOT NULL, sequence bigint NOT NULL,
    first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL, quality real NOT NULL)"""
# An event that comes again changes nothing, whoever wrote it before.
UPSERT = """INSERT INTO tracks VALUES (%s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (track_id) DO UPDATE SET state = excluded.state, sequence = excluded.sequence,
    last_seen = excluded.last_seen, quality = excluded.quality WHERE tracks.sequence < excluded.sequence"""


def row(event: FaceEvent) -> tuple[object, ...]:
    """Values of the table's columns."""
    times = event.first_seen, event.last_seen
    return event.track_id, event.camera_id, event.change.value, event.sequence, *times, event.quality


if len(sys.argv) != 3:
    sys.stderr.write(f"usage: python {sys.argv[0]} SOURCE DATABASE_URL\n\n{__doc__}\n")
    sys.exit(2)
source, database_url = sys.argv[1:]
with psycopg.connect(database_url) as database, EventConsumer(source, group="to-postgres") as events:
    for sign in signal.SIGINT, signal.SIGTERM:
        signal.signal(sign, lambda *_: events.stop())
    database.execute(TABLE)
    database.commit()
    while not events.is_stopping:
        batch = events.take(500, wait_s=1.0)  # what was taken before is done
        rows = [row(event) for event in batch if isinstance(event, FaceEvent)]
        with database.transaction():
            database.cursor().executemany(UPSERT, rows)
