"""TensorRT and TensorRT for RTX.

In the order in which data flows:

    bindings        the only file that imports them
    graph_edits     what TensorRT does not take, written in what it does
    plan_builder    plans, for the GPU of this machine or for others (sm86, sm89, ...)
    loading         a plan at run time; kernels kept beside it
    runner          two calls in flight
"""
