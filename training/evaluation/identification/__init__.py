"""Identification of people, open-set.

In the order in which data flows:

    benchmark   from folders to a run's record
    trials      who is enrolled and who is not
    rates       rank and detection-and-identification rates at false-alarm rates
    scoring     trials to figures and worst mistakes
    audit       proposals of mislabelled names
"""
