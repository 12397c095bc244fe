"""The people who are enrolled.

    enrolment/          photographs and tracks to templates, or the reason why not
    people              the gallery: people and their templates, encrypted where there is a key
    records, tables, database, audit_log    what its SQLite file holds, and how it is opened
    identification/     who is it, of the people enrolled?
    best_shots          one picture a track, kept for a limited time
    json_export         a gallery as one file, to keep elsewhere
    model_migration     the same people under another model
    erasure             a person out of the file, provably

May import sinks, kafka, video and events. The two rooms within do not import each other.
"""
