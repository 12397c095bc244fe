"""What a person at a terminal sees and does while a command runs.

    terminal    consoles and the layout of tables
    progress    a bar on a terminal, lines elsewhere
    live_table  the cameras of a run; events as lines
    signals     Ctrl-C and SIGTERM, in order once a command runs

May import pipeline and whatever is below it; never app.
"""
