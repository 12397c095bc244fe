"""``facestream gallery``: enrol, list, correct, erase, export, import, upgrade.

In the order in which data flows:

    manage      the group of commands; list, rename, remove, audit
    enrol       from photographs, folders and tracks
    transfer    export, import, backup, key changes
    upgrade     moving a gallery to another model, with progress
    opening     how commands name and open a gallery
"""
