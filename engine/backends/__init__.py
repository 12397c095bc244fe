"""What computes a graph, behind ``engine.protocol``: one vendor's library a file.

    openvino, onnxruntime, tensorrt/    the engines
    quantizers      ONNX Runtime's converters to lower precision
    cuda            the GPU by PyCUDA
    machine         what the processor is and can compute in
    benchmarking    engines measured in turn
    telemetry       switched off

May import graphs.
"""
