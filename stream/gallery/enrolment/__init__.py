"""Taking people in.

In the order in which data flows:

    folders         whose photographs a folder holds
    photos          a photograph to an embedding, or the reason why it will not do
    enroller        new templates against those that are there: added, refused, and why
"""
