"""Benchmarks and their metrics. No PyTorch.

    lfw, ytf, clustering, identification/   a folder and a list to a run's record
    sweeps, latency_budget, precision_cost  one benchmark with something changed
    fold_accuracy, set_scores, roc, accuracy_figures, cluster_agreement     metrics
    judged_pairs, compare   stored runs, and whether two differ by more than chance
    mislabelled     names under which two sets show different people

May import data.
"""
