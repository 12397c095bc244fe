"""Make models and judge them.

Never imports ``stream``. The rooms, from the top; each imports only those below it:

    report          figures for people: HTML, plots, the terminal
    evaluation      benchmarks and metrics
    data            lists, crops, readers, cache, results

An empty lot is kept for the room with networks, losses and the training loop, the only one that will import
PyTorch; it will stand beside evaluation, above data.
"""
